"""The configuration as text: files and ``--set`` read, merged and checked, and written with explanations.

Values win in this order: the defaults in `sass.config`, then one file (the one named on the command line,
else ``RUN/config.yaml`` where a scan left one), then single keys given with ``--set``.
"""

import json
import re
import shlex
import textwrap
from operator import attrgetter
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from sass.config import STAGE_SECTIONS, Config, Section
from sass.errors import ConfigError


def load(*layers: Path | dict[str, Any] | None) -> Config:
    """Merge files and dictionaries, later ones winning key by key, and validate the result.

    Parameters
    ----------
    *layers
        Paths of YAML files or nested dictionaries; ``None`` is passed over.

    Raises
    ------
    ConfigError
        A key, type or value is not allowed; the message has the key's path and what is allowed.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        if layer is None:
            continue
        merged = _merge(merged, _read(layer) if isinstance(layer, Path) else layer)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_explain(error, merged)) from None


def check_whole(config: Config) -> Config:
    """Check what lies between sections; a stage, which is given only its own, cannot.

    Raises
    ------
    ConfigError
        More classes are asked for than there will be codes.
    """
    if config.segment.classes > config.codebook.codes:
        raise ConfigError(
            f"segment.classes {config.segment.classes} is more than codebook.codes {config.codebook.codes}: "
            "classes are groups of codes; lower the one or raise the other"
        )
    return config


def assignment(text: str) -> dict[str, Any]:
    """Turn ``section.key=value`` into a nested dictionary; the value is YAML, and so JSON too."""
    path, found, value = text.partition("=")
    if not found:
        raise ConfigError(f"--set {text!r}: expected section.key=value, such as segment.classes=12")
    try:
        tree = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"--set {text!r}: the value is not YAML ({error})") from None
    for key in reversed(path.strip().split(".")):
        tree = {key: tree}
    return tree


def stage_settings(config: Config, stage: str) -> dict[str, Any]:
    """Return the sections and keys that a stage reads, as plain data."""
    return {name: _plain(config, name) for name in STAGE_SECTIONS[stage]}


def stage_arguments(config: Config, stage: str) -> str:
    """Return `stage_settings` as ``--set`` arguments, one string that is equal whenever the values are."""
    return " ".join(section_argument(config, name) for name in STAGE_SECTIONS[stage])


def section_argument(config: Config, name: str) -> str:
    """Return a section, or a single key, as one ``--set`` argument."""
    text = json.dumps(_plain(config, name), sort_keys=True)
    # Snakemake would take {scene} for a wildcard; a brace before a letter stands inside a string of JSON
    text = re.sub(r"\{(?=\w)", r"\\u007b", text)
    return f"--set {shlex.quote(f'{name}={text}')}"


def _plain(config: Config, name: str) -> Any:
    value = attrgetter(name)(config)
    return value.model_dump(mode="json") if isinstance(value, Section) else value


def schema() -> dict[str, Any]:
    """Return the JSON schema of the configuration."""
    return Config.model_json_schema()


def default_yaml() -> str:
    """Return ``config/config.yaml``: every key with its default and an explanation."""
    lines = [
        "# The configuration of a run, with the defaults. Written by `python -m sass config`; "
        "a run's own file",
        "# needs only the keys that differ.",
        "",
    ]
    defaults = Config()
    for name, field in Config.model_fields.items():
        value = getattr(defaults, name)
        if isinstance(value, Section):
            lines += ["", *_comment(type(value).__doc__ or "", ""), f"{name}:"]
            lines += _section_yaml(value, "  ")
        else:
            lines += [*_comment(field.description or "", ""), f"{name}: {default_text(value)}"]
    return "\n".join(lines) + "\n"


def _section_yaml(section: Section, indent: str) -> list[str]:
    lines: list[str] = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        lines += _comment(field.description or "", indent)
        if isinstance(value, Section):
            lines += [f"{indent}{name}:", *_section_yaml(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {default_text(value)}")
    return lines


def default_text(value: Any) -> str:
    plain = json.loads(json.dumps(value))
    return (
        yaml.safe_dump(plain, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")
    )


def _comment(text: str, indent: str, width: int = 108) -> list[str]:
    return [f"{indent}# {line}" for line in textwrap.wrap(text, width - len(indent))]


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        both = isinstance(out.get(key), dict) and isinstance(value, dict)
        out[key] = _merge(out[key], value) if both else value
    return out


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # bytes, a date that is none, brackets
        raise ConfigError(f"{path}: not YAML ({error})") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path}: holds a {type(tree).__name__}; expected sections, as in config/config.yaml"
        )
    return tree


def _explain(error: ValidationError, tree: dict[str, Any]) -> str:
    lines = ["the configuration is not valid:"]
    for fault in error.errors():
        path = _path(fault["loc"], tree) or "(whole)"
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            message = f"no such key; allowed here: {', '.join(_siblings(fault['loc']))}"
        elif fault["type"] == "model_type":
            keys = ", ".join(_siblings((*fault["loc"], "")))
            message = f"expected keys of its own (is {fault['input']!r}); allowed here: {keys}"
        else:
            message += f" (is {fault['input']!r})" if not isinstance(fault["input"], dict | BaseModel) else ""
        lines.append(f"  {path}: {message}")
    return "\n".join(lines)


def _path(loc: tuple[int | str, ...], tree: Any) -> str:
    """Join what stands in the tree; pydantic also names the alternatives of a type."""
    kept = []
    for part in loc:
        if isinstance(part, int) or (isinstance(tree, dict) and part in tree):
            kept.append(str(part))
            tree = tree.get(part) if isinstance(tree, dict) else None
    return ".".join(kept)


def _siblings(loc: tuple[int | str, ...]) -> list[str]:
    section: type[BaseModel] = Config
    for part in loc[:-1]:
        section = section.model_fields[str(part)].annotation  # type: ignore[assignment]
    return sorted(section.model_fields)
