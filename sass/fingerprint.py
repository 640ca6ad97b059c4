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
    {"sass", "sass.config", "sass.settings", "sass.errors", "sass.run", "sass.fingerprint", "sass.progress"}
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
    "change": "sass.change",
    "baselines": "sass.baselines",
    "evaluate": "sass.evaluate",
    "report": "sass.report.build",
}
DATA_FOLDERS = {"report": ("report/templates", "report/static")}
"""Files that are not code but make the output of a stage."""

SILENT = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
"""Fields of a syntax tree that change nothing: they follow from the place, or are comments."""
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
"""What may begin with a docstring."""


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
    imports: list[ast.Import | ast.ImportFrom] = []
    code = rendered(ast.parse(_path(name).read_text(encoding="utf-8")), imports)
    needed = {module for node in imports for module in _inside(node)}
    return hashlib.blake2b(code.encode(), digest_size=16).hexdigest(), tuple(sorted(needed))


def rendered(node: object, imports: list | None = None) -> str:
    """Return a syntax tree as text that is the same in every version of Python, without its docstrings.

    A field is left out where it is empty, for later versions add fields (such as ``type_params``) that are
    empty in the code of today. Statements that import are added to `imports`: every process of a workflow
    renders the whole package, so a tree is gone through once.
    """
    kind = type(node)
    if kind is list:
        return f"[{','.join([rendered(value, imports) for value in node])}]"
    if kind is ast.JoinedStr:
        return f"JoinedStr({_text_and_values(node, imports)})"
    if not isinstance(node, ast.AST):
        return ascii(node)  # repr writes a character as it is or escaped, by the Unicode of the version
    if imports is not None and kind in (ast.Import, ast.ImportFrom):
        imports.append(node)
    filled = []
    for name in _fields(kind):
        value = getattr(node, name, None)
        if name == "body" and kind in DOCUMENTED and _is_text(value):
            value = value[1:]
        if value is not None and value != []:
            filled.append(f"{name}={rendered(value, imports)}")
    return f"{kind.__name__}({','.join(filled)})"


@cache
def _fields(kind: type[ast.AST]) -> tuple[str, ...]:
    return tuple(sorted(set(kind._fields) - SILENT))


def _is_text(body: list[ast.stmt]) -> bool:
    """Tell whether a body begins with a docstring."""
    first = body[0] if body else None
    return (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )


def _text_and_values(node: ast.JoinedStr, imports: list | None) -> str:
    """Return the parts of an f-string; versions differ in how they divide its text."""
    parts: list[str] = []
    text = ""
    for value in node.values:
        if isinstance(value, ast.Constant):
            text += value.value
        else:
            parts += [ascii(text), rendered(value, imports)]
            text = ""
    return ",".join([*parts, ascii(text)])


def _path(name: str) -> Path:
    base = PACKAGE.parent.joinpath(*name.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def _inside(node: ast.Import | ast.ImportFrom):
    """Return the modules of this package that a statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "sass")
    elif (node.module or "").split(".")[0] == "sass":
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if _path(inner).exists() else node.module
