"""Completion by Tab for bash, zsh and fish: scripts made from the parser of the command line.

Commands, options, what an option or argument may be chosen from, and the keys of the configuration after
``--set`` are completed; all else is files.
"""

import argparse
import re
import shlex
from dataclasses import dataclass

from pydantic import BaseModel

from sass.config import Config


@dataclass(frozen=True)
class Command:
    """What follows a command: ``options`` with their help, and ``choices`` by option, ``""`` for none."""

    help: str
    options: dict[str, str]
    choices: dict[str, list[str]]


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """Return what ``bash``, ``zsh`` or ``fish`` reads to complete the words of a parser."""
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    helps = {action.dest: action.help or "" for action in commands._choices_actions}
    table = {name: _command(sub, helps[name]) for name, sub in commands.choices.items()}
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](table)


def _command(parser: argparse.ArgumentParser, about: str) -> Command:
    options: dict[str, str] = {}
    choices: dict[str, list[str]] = {}
    for action in parser._actions:
        options |= dict.fromkeys(action.option_strings, action.help or "")
        if action.choices:
            choices |= {name: list(action.choices) for name in action.option_strings or [""]}
    return Command(about, options, choices)


def keys(section: type[BaseModel] = Config, before: str = "") -> list[str]:
    """Return every key of the configuration that holds a value, after those of its sections."""
    out = []
    for name, field in section.model_fields.items():
        inner = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        out += keys(field.annotation, f"{before}{name}.") if inner else [f"{before}{name}"]
    return out


def _cases(table: dict[str, Command]) -> str:
    """Return the branches, for bash and zsh, that set ``offered`` by command, word before and word."""
    cases = {"*:--set:*": [f"{key}=" for key in keys()]}
    for name, command in table.items():
        cases |= {f"{name}:{option}:*": held for option, held in command.choices.items() if option}
        cases[f"{name}:*:-*"] = list(command.options)
        if "" in command.choices:
            cases[f"{name}:*"] = command.choices[""]
    return "\n".join(
        f"        {case}) offered={shlex.quote(' '.join(held))} ;;" for case, held in cases.items()
    )


def _bash(table: dict[str, Command]) -> str:
    return f"""\
# completion of sass for bash: source <(sass completion bash)
_sass() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} offered=
    case ${{COMP_WORDS[1]}}:$before:$current in
{_cases(table)}
    esac
    if ((COMP_CWORD == 1)); then offered='{" ".join([*table, "--help", "--version"])}'; fi
    COMPREPLY=($(compgen -W "$offered" -- "$current"))
    if [[ ${{COMPREPLY[0]}} == *= ]]; then compopt -o nospace; fi
}}
complete -o default -F _sass sass
"""


def _zsh(table: dict[str, Command]) -> str:
    described = " ".join(shlex.quote(f"{name}:{command.help}") for name, command in table.items())
    return f"""\
#compdef sass
# completion of sass for zsh: source <(sass completion zsh)
_sass() {{
    local offered= commands=({described})
    if ((CURRENT == 2)); then
        _describe command commands
        return
    fi
    case $words[2]:$words[CURRENT-1]:$words[CURRENT] in
{_cases(table)}
    esac
    if [[ -z $offered ]]; then
        _files
    elif [[ $offered == *= ]]; then
        compadd -S '' -- ${{(s: :)offered}}
    else
        compadd -- ${{(s: :)offered}}
    fi
}}
compdef _sass sass
"""


def _fish(table: dict[str, Command]) -> str:
    lines = ["# completion of sass for fish: sass completion fish | source"]
    for name, command in table.items():
        inside = f"complete -c sass -n '__fish_seen_subcommand_from {name}'"
        lines.append(f"complete -c sass -n __fish_use_subcommand -f -a {name} -d {_quoted(command.help)}")
        for option, about in command.options.items():
            held = [f"{key}=" for key in keys()] if option == "--set" else command.choices.get(option, [])
            kind = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            values = f" -x -a {_quoted(' '.join(held))}" if held else ""
            lines.append(f"{inside} {kind} -d {_quoted(about)}{values}")
        if "" in command.choices:
            lines.append(f"{inside} -f -a {_quoted(' '.join(command.choices['']))}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + re.sub(r"(['\\])", r"\\\1", text) + "'"
