"""Which code made it: a hash of a stage's module and of all it imports inside the package.

Snakemake does not notice when an imported module changes. Each rule therefore carries this fingerprint
as a parameter. Comments, docstrings and layout are left out: they change nothing that is computed.
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
    "evaluate": "sass.evaluate",
    "report": "sass.report.build",
}
DATA_FOLDERS = {"report": ("report/templates", "report/static")}
"""Files that are not code but make the output of a stage."""


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
    code = ast.dump(_without_docstrings(tree))
    return hashlib.blake2b(code.encode(), digest_size=16).hexdigest(), imports


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
