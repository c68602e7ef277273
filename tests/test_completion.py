"""The shells' completion and the man page contain every command and option."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

import pytest
from daemon import APMPI

from apmpi.tools import cli

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/apmpi.1"

COMMANDS: dict[str, argparse.ArgumentParser] = next(
    action.choices for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction)
)


def options(command: str) -> set[str]:
    return {text for action in COMMANDS[command]._actions for text in action.option_strings}


def script(shell: str, folder: Path) -> Path:
    path = folder / shell
    path.write_text(
        subprocess.run([APMPI, "completion", shell], check=True, stdout=subprocess.PIPE, text=True).stdout
    )
    return path


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def completed_by_bash(path: Path, *words: str) -> set[str]:
    """Completions offered for the last of the words."""
    line = " ".join(f"'{word}'" for word in ("apmpi", *words))
    program = f"""
        source {path}
        function_of=$(complete -p apmpi | grep -o -- '-F [^ ]*' | cut -c4-)
        COMP_WORDS=({line}); COMP_CWORD={len(words)}; COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}
        $function_of apmpi '{words[-1]}' ''
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "--norc", "-c", program], capture_output=True, text=True, timeout=20)
    return {word.strip() for word in done.stdout.splitlines()}


def test_bash(tmp_path: Path) -> None:
    path = script("bash", tmp_path)
    assert completed_by_bash(path, "") >= set(COMMANDS)
    assert completed_by_bash(path, "mon") == {"monitor"}
    for command in COMMANDS:
        assert completed_by_bash(path, command, "--") == {
            text for text in options(command) if text[:2] == "--"
        }
    assert completed_by_bash(path, "completion", "z") == {"zsh"}
    (tmp_path / "mine.yaml").touch()
    assert completed_by_bash(path, "check", f"{tmp_path}/mi") == {f"{tmp_path}/mine.yaml"}


@needs("fish")
def test_fish(tmp_path: Path) -> None:
    path = script("fish", tmp_path)

    def completed(line: str) -> set[str]:
        done = subprocess.run(
            ["fish", "--no-config", "-c", f"source {path}; complete -C '{line}'"],
            capture_output=True,
            text=True,
        )
        assert done.stderr == ""
        return {word.split("\t")[0] for word in done.stdout.splitlines()}

    assert completed("apmpi ") >= set(COMMANDS)
    for command in COMMANDS:
        assert completed(f"apmpi {command} --") == {text for text in options(command) if text[:2] == "--"}


@needs("zsh")
def test_zsh(tmp_path: Path) -> None:
    """The offered words cannot be queried outside of zsh's line editor: the script loads, and contains them
    all.
    """
    path = script("zsh", tmp_path)
    subprocess.run(["zsh", "-f", "-n", path], check=True)
    program = (
        f'autoload -U compinit && compinit -D -u && eval "$(<{path})" && (( $+functions[_shtab_apmpi] ))'
    )
    done = subprocess.run(["zsh", "-f", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    text = path.read_text()
    for command in COMMANDS:
        assert command in text and all(option in text for option in options(command))


def test_the_man_page_has_every_command_and_option() -> None:
    text = PAGE.read_text().replace("\\-", "-")
    for command in COMMANDS:
        assert f".B apmpi {command} " in text, command
        for option in options(command) - {"-h", "--help"}:
            assert option in text, option


@needs("groff")
def test_the_man_page_is_well_formed() -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", PAGE], capture_output=True, text=True, timeout=20
    )
    assert (done.returncode, done.stderr) == (0, "")
