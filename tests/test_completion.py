"""Completion by Tab, as the shells themselves do it."""

import os
import pty
import shutil
import subprocess
import sys

import pytest

from sass.cli import main
from sass.settings import load


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """Write the script of each shell; give the folder."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh", "fish"):
        done = subprocess.run(
            [sys.executable, "-m", "sass", "completion", shell], capture_output=True, text=True, check=True
        )
        (folder / f"sass.{shell}").write_text(done.stdout)
    (folder / "results").mkdir()
    (folder / "mine.yaml").touch()
    return folder


def given(folder, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def bash(folder, line: str) -> list[str]:
    """Return what bash offers at the end of a line."""
    words = line.split(" ")
    code = f"""
        source sass.bash
        compopt() {{ :; }}  # it works while Tab is pressed only
        COMP_WORDS=({" ".join(f"'{word}'" for word in words)}) COMP_CWORD={len(words) - 1}
        _sass
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    return given(folder, "bash", "--norc", "-c", code).split()


@pytest.mark.parametrize(
    "line, offered",
    [
        ("sass se", ["segment"]),
        ("sass st", ["status"]),
        ("sass --v", ["--version"]),
        ("sass segment run --cl", ["--classes"]),
        ("sass segment run --set segment.cl", ["segment.classes="]),
        ("sass train run --set train.views.bl", ["train.views.blur="]),
        ("sass train run --classes", []),  # an option of another command
        ("sass completion f", ["fish"]),
        ("sass benchmark potsdam3 --protocol ", ["iic", "stego"]),
        ("sass status ", []),  # files, by the default of the shell
    ],
)
def test_bash_offers(scripts, line, offered):
    assert bash(scripts, line) == offered


def test_bash_offers_every_command_and_every_key_is_one(scripts):
    with pytest.raises(SystemExit):
        main(["no such command"])
    commands = bash(scripts, "sass ")
    assert {"scan", "ingest", "report", "status", "verify", "explain", "completion"} <= set(commands)
    for key in bash(scripts, "sass train run --set "):
        tree = load().model_dump()
        for part in key.removesuffix("=").split("."):
            tree = tree[part]


def test_tab_in_a_real_bash_takes_the_keys_as_they_are(scripts):
    """What readline makes of it: an equals sign is not followed by a space, and folders are found."""
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"], cwd=scripts, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    os.write(ours, b'PS1=; source sass.bash; sass() { echo "<$*>"; }\n')
    os.write(ours, b"sass seg\tres\t --set segment.cl\t12\nexit\n")
    text = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:
            break
        text += part
        if not part:
            break
    assert shell.wait(60) == 0
    os.close(ours)
    assert b"<segment results/ --set segment.classes=12>" in text, text.decode()


@pytest.mark.skipif(not shutil.which("zsh"), reason="there is no zsh on this machine")
def test_zsh_reads_its_script_and_offers_the_keys(scripts):
    code = """
        autoload -Uz compinit; compinit -u -D
        source ./sass.zsh
        [[ $_comps[sass] == _sass ]] || exit 1
        compadd() { shift $(($@[(i)--])); print -l -- "$@"; }
        words=(sass train run --set segment.) CURRENT=5
        _sass
    """
    offered = given(scripts, "zsh", "-f", "-c", code).split()
    assert "segment.classes=" in offered


@pytest.mark.skipif(not shutil.which("fish"), reason="there is no fish on this machine")
@pytest.mark.parametrize(
    "line, offered",
    [
        ("sass stat", ["status"]),
        ("sass segment run --cl", ["--classes"]),
        ("sass segment run --set segment.cl", ["segment.classes="]),
        ("sass completion z", ["zsh"]),
    ],
)
def test_fish_offers(scripts, line, offered):
    said = given(scripts, "fish", "--no-config", "-c", f"source sass.fish; complete -C '{line}'")
    assert [row.split("\t")[0] for row in said.splitlines()] == offered
