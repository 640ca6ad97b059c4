"""Files that are whole or not there, and what they hold said in a digest.

What is written goes under a temporary name and is renamed. JSON has one form: equal values are equal bytes.
"""

import atexit
import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

Files = dict[str, list]
"""Name to ``[bytes, digest]``."""


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys under a temporary name, then rename. An equal file is left untouched."""
    text = json_text(value)
    with contextlib.suppress(FileNotFoundError, UnicodeDecodeError):
        if path.read_text(encoding="utf-8") == text:
            return
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_text(value: Any) -> str:
    """Return the one form in which JSON is written."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """Read JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; on success what was written there takes its place.

    Works for files and for folders. A half-written one left by a killed process is removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial{path.suffix}")
    remove(temporary)
    try:
        yield temporary
        if path.is_dir():
            remove(path)
        os.replace(temporary, path)
    except BaseException:
        _BROKEN_OFF.add(temporary)
        with contextlib.suppress(OSError):
            remove(temporary)
        raise


_BROKEN_OFF: set[Path] = set()


@atexit.register  # threads of a writer may still have been at work and have made anew what was removed
def _sweep() -> None:
    for path in _BROKEN_OFF:
        with contextlib.suppress(OSError):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def digest(*parts: Any) -> str:
    """Hash plain data (anything JSON can hold) to 32 hexadecimal digits."""
    text = json.dumps(parts, sort_keys=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """Hash a file's bytes, or the names and bytes of all files below a folder."""
    hasher = hashlib.blake2b(digest_size=16)
    members = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for member in members:
        name = "" if member == path else member.relative_to(path).as_posix()
        hasher.update(f"{name}\0{member.stat().st_size}\0".encode())
        with member.open("rb") as stream:
            while block := stream.read(1 << 20):
                hasher.update(block)
    return hasher.hexdigest()


def members(path: Path) -> dict[str, Path]:
    """Return the files below a folder by their names in it; or the file itself by its own.

    Those in which a GIS keeps what it has found of a raster are left out: it writes them anew when it likes.
    """
    if not path.is_dir():
        return {path.name: path} if path.exists() else {}
    files = (p for p in sorted(path.rglob("*")) if not p.is_dir() and not p.name.endswith(".aux.xml"))
    return {p.relative_to(path).as_posix(): p for p in files}


def contents(path: Path, threads: int = 1) -> Files:
    """Return size and digest of each of the `members` of a path."""
    held = members(path)
    with ThreadPoolExecutor(threads) as pool:
        digests = pool.map(file_digest, held.values())
        return {name: [file.stat().st_size, own] for (name, file), own in zip(held.items(), digests)}


def sealed(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a tree with a digest of itself, by which it is known to be as it was written."""
    held = {key: value for key, value in tree.items() if key != "seal"}
    return held | {"seal": digest(held)}
