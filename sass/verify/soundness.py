"""Whether a file is as it was written: its form, its seal, its size, its bytes."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sass.files import file_digest, json_text, sealed


def read_sound(path: Path) -> tuple[Any, str]:
    """Read JSON that must be, byte for byte, in the form in which `files.write_json` writes.

    Returns
    -------
    tree
        What it says, or None.
    wrong
        Why it says nothing, or an empty string.
    """
    try:
        text = path.read_bytes().decode()
        tree = json.loads(text)
        same = json_text(tree) == text
    except FileNotFoundError:
        return None, "is missing"
    except OSError as error:
        return None, f"cannot be read ({error.strerror})"
    except ValueError:
        return None, "is no JSON"
    return (tree, "") if same else (None, "is not in the form in which it was written")


def read_sealed(path: Path) -> tuple[dict[str, Any] | None, str]:
    """Read JSON as `read_sound` does, that must have been `files.sealed`."""
    tree, wrong = read_sound(path)
    if wrong:
        return None, wrong
    if not isinstance(tree, dict) or tree.get("seal") != sealed(tree)["seal"]:
        return None, "is not as it was written"
    return tree, ""


def measured(path: Path, hashed: bool) -> list:
    """Return the bytes of a file and its digest if asked for; None and why if it cannot be read."""
    try:
        return [path.stat().st_size, file_digest(path) if hashed else None]
    except OSError as error:
        return [None, error.strerror]


def difference(said: list, held: list | None) -> str:
    """Say how a file that was `measured` differs from what was recorded; empty if it does not."""
    if held is None:
        return "is missing"
    size, found = held
    if size is None:
        return f"cannot be read ({found})"
    if size != said[0]:
        return (
            f"ends after {size} of {said[0]} bytes" if size < said[0] else f"has {size} bytes, not {said[0]}"
        )
    return "has other bytes than were written" if found not in (None, said[1]) else ""


def readable(path: Path) -> bool:
    """Say whether what a stage has left for the whole archive can be opened."""
    if path.suffix == ".json":
        return read_sound(path)[0] is not None
    if path.suffix == ".safetensors":
        return header_of(path) is not None
    return path.exists()


def header_of(path: Path) -> dict[str, Any] | None:
    """Return what SASS has written into a file of tensors beside them; None if it cannot be read."""
    try:
        with safe_open(path, framework="numpy") as file:
            return json.loads(file.metadata()["sass"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def half_written(name: str) -> bool:
    """Say whether a name is one under which files are written before they are renamed."""
    return name.startswith(".") and (".partial" in name or name.endswith(".plain.tif"))
