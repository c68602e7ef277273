"""The README and the other pages: their links, commands, examples and lists are right."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from apmpi.service.yaml_reader import parse
from apmpi.tools import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [
    path
    for pattern in ("*.md", "*/*.md")
    for path in sorted(ROOT.glob(pattern))
    if not path.parent.name.startswith(".") or path.parent == ROOT
]


def test_the_python_example_runs() -> None:
    examples = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert examples
    for example in examples:
        subprocess.run([sys.executable, "-c", example], check=True, cwd="/")


def test_what_it_names_is_there() -> None:
    folders = set(re.findall(r"^\| `([\w.]+)/`", README, re.MULTILINE))
    here = {path.parent.name for path in ROOT.glob("*/*") if path.is_file()} | {"native"}
    ignored = {line.strip("/\n") for line in (ROOT / ".gitignore").read_text().splitlines()} | {".git"}
    assert folders == here - ignored


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_says_can_be_done(page: Path) -> None:
    """Links lead somewhere, commands have the options they are given, configurations are taken."""
    text = page.read_text()
    for link in re.findall(r"\]\((?!https:)([^)]+)\)", text):
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        headings = re.findall(r"^#+ (.*)", target.read_text(), re.MULTILINE) if heading else []
        slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}
        assert not heading or heading in slugs, link
    code = [*re.findall(r"```\w*\n(.*?)```", text, re.DOTALL), *re.findall(r"`([^`\n]+)`", text)]
    for command in re.findall(
        r"^(?:\.venv/bin/|sudo )?apmpi ([a-z]+ .+|[a-z]+)$", "\n".join(code), re.MULTILINE
    ):
        words = shlex.split(re.split(r"[|&>]| 2>", command, maxsplit=1)[0], comments=True)
        if words[-1] != "--help" and not words[0].isupper():
            cli.parser().parse_args(words)
    for yaml in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        parse(yaml, str(page))


def test_readme_leads_to_every_page() -> None:
    for page in PAGES:
        assert page == ROOT / "README.md" or f"({page.relative_to(ROOT)})" in README, page.name
