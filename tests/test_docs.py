"""The documentation: the site builds without a complaint, its commands parse, its messages are the code's."""

import ast
import functools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from report.browser import CHROMIUM, opened
from snakemake.cli import get_argument_parser

from sass import cli

CHECKOUT = Path(__file__).parent.parent
PAGES = [
    *sorted((CHECKOUT / "docs").glob("*.md")),
    *(CHECKOUT / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md", "bench/README.md")),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Build the site as ``make docs`` does: a warning is an error, and so is a link that leads nowhere."""
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", folder]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_key_and_every_command_is_on_the_site(site):
    keys = (site / "reference" / "keys.html").read_text()
    for key in ("segment.classes", "train.views.rotate", "codebook.weights.colour", "catalog.hold_out"):
        assert f"{key}</span>" in keys
    commands = (site / "reference" / "commands.html").read_text()
    (held,) = (a for a in cli._parser()._actions if hasattr(a, "_choices_actions"))
    for name in held.choices:
        assert f"sass {name}<a" in commands


def test_a_page_loads_nothing_from_a_network(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        loaded = re.findall(
            r'<(?:script|img|link|iframe|source)\b[^>]*?(?:src|href)="([^"]*)"', page.read_text()
        )
        assert loaded and not [url for url in loaded if "//" in url], page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//|@import", sheet.read_text()), sheet


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the site with")
def test_no_page_scrolls_sideways_on_a_phone(site, tmp_path):
    with opened(tmp_path) as browser:
        for page in sorted(site.glob("*.html")) + sorted(site.glob("reference/*.html")):
            browser.open(page, width=390, height=800)
            wide = browser.ask("document.documentElement.scrollWidth") - 390
            assert wide <= 0, f"{page.name} is {wide} pixels too wide"
        assert browser.complaints == []


def lines() -> list[tuple[str, str]]:
    """Return page and line of every command in a block of shell."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                found.append((page.name, line.strip()))
    return found


def words_of(line: str, command: str) -> list[str] | None:
    """Return what follows a command in a line, if it is that command."""
    words = shlex.split(line, comments=True)
    while words and words[0] in ("time", "srun", "nohup"):
        words.pop(0)
    if words[:2] == ["python", "-m"]:
        words = words[2:]
    for end in ("|", "&&", "&", ">"):
        words = words[: words.index(end)] if end in words else words
    return words[1:] if words[:1] == [command] else None


@functools.cache
def snakemake():
    return get_argument_parser()


@pytest.mark.parametrize("page, line", lines())
def test_a_command_is_one_that_is_taken(page, line, capsys):
    if (words := words_of(line, "sass")) is not None:
        if "..." not in words:
            try:
                cli._parser().parse_args(words)
            except SystemExit as end:
                assert end.code == 0, capsys.readouterr().err
    elif (words := words_of(line, "snakemake")) is not None:
        asked = snakemake().parse_args([word for word in words if word != "..."])
        for profile in asked.profile or []:
            assert (CHECKOUT / profile / "profile.yaml").exists() or profile == "slurm"
        for path in asked.configfile or []:
            assert "mine" in str(path) or (CHECKOUT / path).exists()
    elif (words := words_of(line, "make")) is not None:
        targets = re.findall(r"^([a-z][a-z -]*):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
        known = {name for target in targets for name in target.split()}
        assert {word for word in words if "=" not in word} <= known


def test_there_are_commands_to_test():
    asked = [
        command for command in ("sass", "snakemake", "make") for _, line in lines() if words_of(line, command)
    ]
    assert asked.count("sass") > 20 and asked.count("snakemake") > 10 and asked.count("make") > 0


def texts() -> list[str]:
    """Return every text in the code of the package, with … in place of values."""
    out = []
    for path in (CHECKOUT / "sass").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                out.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (v.value if isinstance(v, ast.Constant) else "…" for v in node.values)
                out.append("".join(parts))
    return out


@functools.cache
def said() -> str:
    return "\0".join(texts())


@pytest.mark.parametrize(
    "message", re.findall(r"^> (.*)$", (CHECKOUT / "docs" / "faq.md").read_text(), re.MULTILINE)
)
def test_a_message_of_the_faq_is_one_that_the_code_says(message):
    parts = [re.escape(part) for part in message.strip().split("…")]
    assert re.search("[^\0]*".join(parts), said()), message


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "config/README.md",
    ],
)
def test_links_of_the_checkout_lead_somewhere(page):
    """Pages in docs/ are held to this by the build of the site."""
    path = CHECKOUT / page
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" not in link:
            name, _, anchor = link.partition("#")
            target = path.parent / name if name else path
            assert target.exists(), link
            if anchor:
                titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
                assert anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
