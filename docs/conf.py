"""How the site is made of the pages in this folder: ``make docs``.

Two pages are written from the code each time: the commands from their parser, the keys of the configuration
from their sections. Nothing is loaded from a network, neither to build the site nor to read it.
"""

import argparse
from pathlib import Path
from typing import Any

from sass import __version__, cli
from sass.config import Config, Section
from sass.settings import default_text

HERE = Path(__file__).parent

project = "SASS"
author = copyright = "the SASS developers, MIT licence"
version = release = __version__

extensions = ["myst_parser"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # tables of results begin below their title
nitpicky = True

smartquotes = False  # messages are found by their words

html_theme = "furo"
html_title = f"SASS {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False


ROOT = HERE.parent
COPIED = {
    "ARCHITECTURE.md": "reference/architecture.md",
    "CHANGELOG.md": "reference/changelog.md",
    "SECURITY.md": "reference/security.md",
    "bench/README.md": "reference/benchmarks.md",
    "bench/results/quality-small-dubai.md": "reference/quality-small-dubai.md",
    "bench/results/quality-small.md": "reference/quality-small.md",
}
"""Pages of the checkout that the site has too; links lead to the copies."""
SHOWN = COPIED | {"config/README.md": "configuration.md"}


def commands() -> str:
    """Return the page of all commands, as their help has it."""
    (held,) = (a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction))
    parts = ["# Commands", "Written from the command line itself.", f"```text\n{cli.TOUR}```"]
    for name, parser in held.choices.items():
        parts += [f"## sass {name}", f"```text\n{parser.format_help()}```"]
    return "\n\n".join(parts) + "\n"


def configuration() -> str:
    """Return the page of all keys of the configuration."""
    parts = [
        "# Configuration keys",
        "Every key with what it may be and its default, written from the code. A file of yours needs only "
        "the keys that differ; what to change for which purpose is in [Configuration](../configuration.md).",
    ]
    schema = Config.model_json_schema()
    for name, field in Config.model_fields.items():
        value = getattr(Config(), name)
        if isinstance(value, Section):
            parts += [f"## {name}", type(value).__doc__, *_keys(value, name, schema)]
        else:
            parts.append(_key(name, value, schema["properties"][name], schema, field.description))
    return "\n\n".join(parts) + "\n"


def _keys(section: Section, path: str, schema: dict[str, Any]):
    own = schema["$defs"][type(section).__name__]["properties"]
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            yield f"### {path}.{name}"
            yield type(value).__doc__
            yield from _keys(value, f"{path}.{name}", schema)
        else:
            yield _key(f"{path}.{name}", value, own[name], schema, field.description)


def _key(path: str, value: Any, own: dict[str, Any], schema: dict[str, Any], about: str | None) -> str:
    return f"`{path}`\n: {about or ''}\n: *{_kind(own)}*; default `{default_text(value)}`"


def _kind(own: dict[str, Any]) -> str:
    """Say in words what a JSON schema allows."""
    if "anyOf" in own:
        return " or ".join(_kind(part) for part in own["anyOf"])
    if "enum" in own or "const" in own:
        return " or ".join(f"`{value}`" for value in own.get("enum", [own.get("const")]))
    words = {
        "integer": "whole number", "number": "number", "boolean": "true or false", "string": "text",
        "null": "null", "object": "mapping", "array": "list",
    }  # fmt: skip
    text = words[own["type"]]
    if "items" in own:
        text += f" of: {_kind(own['items'])}"
    elif "prefixItems" in own:
        text += f" of {len(own['prefixItems'])}: {_kind(own['prefixItems'][0])}"
    bounds = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    limits = [f"{word} {own[key]}" for key, word in bounds.items() if key in own]
    return text + (f" ({', '.join(limits)})" if limits else "")


def _write(path: Path, text: str) -> None:
    """Write a page only where it differs, so that a second build has nothing to do."""
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _copied(page: str) -> str:
    """Return a page of the checkout with its links as they are from the folder of copies."""
    return (ROOT / page).read_text().replace("](docs/", "](../").replace("](../docs/", "](../")


def _inside(app, name: str, source: list[str]) -> None:
    """Lead links out of this folder to the pages of the site that show the same."""
    for page, shown in SHOWN.items():
        source[0] = source[0].replace(f"](../{page}", f"]({shown}")


def setup(app) -> None:
    """Write the pages that come from the code or the checkout, before any is read."""
    app.connect("source-read", _inside)
    for page, place in COPIED.items():
        _write(HERE / place, _copied(page))
    _write(HERE / "reference" / "commands.md", commands())
    _write(HERE / "reference" / "keys.md", configuration())
