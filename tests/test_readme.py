"""The README is a promise like any other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


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
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link).exists(), link
