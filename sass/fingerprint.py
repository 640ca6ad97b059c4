"""Which code made it: a hash of a stage's module and of all it imports inside the package.

Snakemake does not notice when an imported module changes. Each rule therefore carries this fingerprint
as a parameter. Comments, docstrings and layout are left out: they change nothing that is computed. The
syntax tree is written down here, not by `ast.dump`, whose text is another with each version of Python: an
upgrade would make a whole archive anew.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
VALUES_ONLY = frozenset(
    {"sass", "sass.config", "sass.settings", "sass.errors", "sass.run", "sass.fingerprint"}
)
"""Modules that compute nothing: their values are fingerprinted as values, their texts do not matter."""

STAGE_MODULES = {
    "ingest": "sass.ingest",
    "normalize": "sass.statistics",
    "train": "sass.train",
    "features": "sass.features",
    "codebook": "sass.cluster.codebook",
    "hierarchy": "sass.cluster.hierarchy",
    "name": "sass.naming",
    "segment": "sass.segment",
    "baselines": "sass.baselines",
    "evaluate": "sass.evaluate",
    "report": "sass.report.build",
}
DATA_FOLDERS = {"report": ("report/templates", "report/static")}
"""Files that are not code but make the output of a stage."""

SILENT = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
"""Fields of a syntax tree that change nothing: they follow from the place, or are comments."""


def stage_fingerprint(stage: str) -> str:
    """Return 16 hexadecimal digits that change when the code of a stage does."""
    hasher = hashlib.blake2b(digest_size=8)
    for module in sorted(_closure(STAGE_MODULES[stage])):
        hasher.update(f"{module}\0{_module(module)[0]}\0".encode())
    for folder in DATA_FOLDERS.get(stage, ()):
        for path in sorted(p for p in (PACKAGE / folder).rglob("*") if p.is_file()):
            hasher.update(f"{path.name}\0".encode() + path.read_bytes())
    return hasher.hexdigest()


def _closure(module: str) -> set[str]:
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen and name not in VALUES_ONLY:
            seen.add(name)
            waiting += _module(name)[1]
    return seen


@cache
def _module(name: str) -> tuple[str, tuple[str, ...]]:
    """Return the hash of a module's syntax tree and the modules of this package it imports."""
    tree = ast.parse(_path(name).read_text(encoding="utf-8"))
    imports = tuple(sorted(set(_imports(tree))))
    code = rendered(_without_docstrings(tree))
    return hashlib.blake2b(code.encode(), digest_size=16).hexdigest(), imports


def rendered(node: object) -> str:
    """Return a syntax tree as text that is the same in every version of Python.

    A field is left out where it is empty, for later versions add fields (such as ``type_params``) that are
    empty in the code of today.
    """
    if isinstance(node, ast.JoinedStr):
        return f"JoinedStr({_text_and_values(node)})"
    if isinstance(node, ast.AST):
        fields = ((name, getattr(node, name, None)) for name in sorted(node._fields) if name not in SILENT)
        filled = (f"{name}={rendered(value)}" for name, value in fields if value is not None and value != [])
        return f"{type(node).__name__}({','.join(filled)})"
    if isinstance(node, list):
        return f"[{','.join(map(rendered, node))}]"
    return ascii(node)  # repr writes a character as it is or escaped, by the Unicode of the version


def _text_and_values(node: ast.JoinedStr) -> str:
    """Return the parts of an f-string; versions differ in how they divide its text."""
    parts: list[str] = []
    text = ""
    for value in node.values:
        if isinstance(value, ast.Constant):
            text += value.value
        else:
            parts += [ascii(text), rendered(value)]
            text = ""
    return ",".join([*parts, ascii(text)])


def _path(name: str) -> Path:
    base = PACKAGE.parent.joinpath(*name.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def _imports(tree: ast.Module):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "sass")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sass":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if _path(inner).exists() else node.module


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return tree
