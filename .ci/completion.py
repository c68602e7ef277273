"""Command, run by hand, that writes apmpi/tools/completion/SHELL from the command line's parser, with
shtab."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import shtab

from apmpi.tools import cli


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield a parser and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from parsers(command)


root = cli.parser()
for parser in parsers(root):
    for action in parser._actions:
        if action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
folder = Path("apmpi/tools/completion")
folder.mkdir(exist_ok=True)
for shell in cli.SHELLS:
    (folder / shell).write_text(shtab.complete(root, shell))
