"""The code's fingerprint: changed by what is computed, not by how it is written down."""

import ast
import hashlib
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sass.fingerprint
from sass.config import STAGE_SECTIONS
from sass.fingerprint import DATA_FOLDERS, STAGE_MODULES, rendered, stage_fingerprint

SOURCE = Path(sass.fingerprint.__file__).parent


@pytest.fixture(scope="module")
def before() -> dict[str, str]:
    """Take the fingerprints of the code as it is."""
    return prints()


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """Copy the package, and let fingerprints be taken of the copy."""
    copy = tmp_path / "sass"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(sass.fingerprint, "PACKAGE", copy)
    sass.fingerprint._module.cache_clear()
    yield copy
    sass.fingerprint._module.cache_clear()


def prints() -> dict[str, str]:
    sass.fingerprint._module.cache_clear()  # a process reads each module once
    return {stage: stage_fingerprint(stage) for stage in STAGE_MODULES}


def changed(before: dict[str, str]) -> set[str]:
    after = prints()
    return {stage for stage in before if after[stage] != before[stage]}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path.name} has no {old!r} any more: the test edits it"
    path.write_text(text.replace(old, new, 1))


def test_a_fingerprint_is_of_the_code_not_of_its_place(package, before):
    assert prints() == before
    assert all(len(value) == 16 and int(value, 16) >= 0 for value in before.values())
    assert len(set(before.values())) == len(before)


@pytest.mark.parametrize("stage", STAGE_MODULES)
def test_every_stage_has_its_module_and_its_settings(stage):
    assert importlib.util.find_spec(STAGE_MODULES[stage])
    assert stage in STAGE_SECTIONS
    for folder in DATA_FOLDERS.get(stage, ()):
        assert any((SOURCE / folder).iterdir())


def test_comments_docstrings_and_layout_change_nothing(package, before):
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text())
        if tree.body and ast.get_docstring(tree) is not None:
            tree.body[0].value.value = "Another docstring."
        # unparsed code has no comment left, and other line breaks
        path.write_text("# SPDX-License-Identifier: MIT\n\n\n" + ast.unparse(tree) + "\n\n\n# end\n")
    assert changed(before) == set()


def test_a_docstring_may_go(package, before):
    edit(package / "grid.py", '    """Round up to a multiple."""\n', "")
    assert changed(before) == set()


@pytest.mark.parametrize(
    "file, old, new, stale, kept",
    [
        # the module of the stage
        ("ingest.py", "minlength=BINS", "minlength=BINS + 1", "ingest", "normalize train features segment"),
        ("segment.py", "import numpy as np", "import numpy", "segment", "ingest train features codebook"),
        # a module that it imports
        ("raster.py", "border_value=1", "border_value=0", "ingest", "normalize train features segment"),
        ("model/loss.py", "import torch", "import numpy", "train", "ingest features codebook segment"),
        (
            "cluster/hierarchy.py",
            "def cut(",
            "SWITCH = 1\ndef cut(",
            "hierarchy segment",
            "ingest train features codebook",
        ),
        # one that is imported by what it imports
        ("store.py", '"zstd", "lz4"', '"zstd", "zstd"', "ingest features", ""),
        (
            "grid.py",
            "-(-value // multiple)",
            "-(-value // multiple + 0)",
            "ingest train features segment",
            "",
        ),
        ("statistics.py", "BINS = 65536", "BINS = 131072", "ingest normalize train features", ""),
    ],
)
def test_code_changes_the_stages_that_reach_it(package, before, file, old, new, stale, kept):
    edit(package / file, old, new)
    found = changed(before)
    assert found >= set(stale.split())
    assert not found & set(kept.split()), "what takes a user longest is made again for nothing"


@pytest.mark.parametrize("file", ["config.py", "settings.py", "errors.py", "run.py", "scan.py", "cli.py"])
def test_modules_that_make_no_output_do_not_count(package, before, file):
    with (package / file).open("a") as stream:
        stream.write("\n\nSWITCH = 1\n")
    assert changed(before) - {"report"} == set()


def test_a_template_changes_the_report(package, before):
    template = next(p for p in (package / "report" / "templates").iterdir() if p.is_file())
    template.write_text(template.read_text() + "\n")
    assert changed(before) == {"report"}


def test_imports_are_such_as_the_fingerprint_sees():
    """Relative imports and code in a package's ``__init__`` would change outputs unnoticed."""
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: write the import in full"
        if path.name == "__init__.py" and path.parent != SOURCE:
            assert all(isinstance(node, ast.Expr) for node in tree.body), f"{path}: no code here"


EVERYTHING = r'''
"""Docstring."""
import a.b as c
from d import e, f as g
x: int = 1_000 + 0x10 - 1e-3j * -2.5 ** 7 // True @ None
s = u"a" 'ÿ\u2603\U0001f600' "\N{NO-BREAK SPACE}\n" + b"\x00".decode() + f"a{x!r:>{w}.2f}b" "c" f"{y=}{{}}"
t = f"{z}"
d = {**a, 1: ..., "k": [*b, *()]}, {1, 2}, (yield_ := 3), a[1:2, ::3, ...], not a < b <= c is not d in e
async def coroutine(a, /, b: str = "x", *c, d, e=None, **f) -> "None":
    "Docstring."
    async with a as b, c: await d
    async for i in j: yield [k async for k in l if m]
    else: del n, o[0], p.q
    return lambda *, u=1, v: (yield)
@decorated(1)
class C(B, metaclass=M):  # comment
    def f(self):
        global g; nonlocal_ = 1
        try: raise E from None
        except (A, B) as e: assert a, "b"
        else: pass
        finally: yield from x
        while True:
            if a: break
            elif b: continue
        match v:
            case {"a": 1, **rest} | [1, *_] | P(x, y=None) | -1 | "s" as whole if c: ...
            case _: return
for (a, *b) in c: d |= e if f else g
'''
"""A piece of every kind of code."""


def test_a_fingerprint_is_the_same_in_every_version_of_python():
    """Runs carry it: where this changes, the next run of every user makes everything anew."""
    text = rendered(ast.parse(EVERYTHING))
    assert hashlib.blake2b(text.encode(), digest_size=8).hexdigest() == "b72a69c3c11aec5a"


OTHERS = [f"python3.{minor}" for minor in range(11, 16) if minor != sys.version_info.minor]


@pytest.mark.parametrize("python", OTHERS)
def test_another_python_on_this_machine_gives_the_same_fingerprints(before, python):
    code = (
        "from sass.fingerprint import STAGE_MODULES, stage_fingerprint as of; print(*map(of, STAGE_MODULES))"
    )
    try:
        words = [python, "-B", "-c", code]
        done = subprocess.run(words, cwd=SOURCE.parent, capture_output=True, text=True)
    except FileNotFoundError:
        done = None
    if done is None or "command not found" in done.stderr:
        pytest.skip(f"there is no {python} on this machine")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(before.values())


@pytest.mark.parametrize(
    "one, other",
    [
        ("x = None", "x = 0"),
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = 'a'", "x = b'a'"),
        ("x = {**a, 1: b}", "x = {1: b, **a}"),
        ("f(a, *b)", "f(*b, a)"),
        ("def f(*, a, b=1): ...", "def f(*, a=1, b): ..."),
        ("x = a[:1]", "x = a[1:]"),
        ("x = f'{a}b'", "x = f'b{a}'"),
        ("x = f'{a}'", "x = f'{a!r}'"),
        ("x = f'{a}'", "x = 'a'"),
        ("x = a - b", "x = b - a"),
        ("return_ = []", "return_ = ()"),
        ("from a import b", "from a import b as c"),
        ("try: a()\nexcept E: b()", "try: a()\nexcept: b()"),
    ],
)
def test_other_code_is_written_down_otherwise(one, other):
    assert rendered(ast.parse(one)) != rendered(ast.parse(other))
