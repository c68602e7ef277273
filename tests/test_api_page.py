"""The page of the Python interface and its contents."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import apmpi

ROOT = Path(__file__).parents[1]


def test_everything_public_is_on_the_page_with_its_docstring(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / ".ci/api_page.py", tmp_path], check=True)
    page = (tmp_path / "apmpi.html").read_text()
    found = set(re.findall(r'id="([\w.]+)"', page))
    for name in apmpi.__all__:
        for member, value in vars(getattr(apmpi, name)).items():
            # Members that only hold a value are described by the class.
            function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            if member.startswith("_") or not inspect.isfunction(function):
                continue
            assert f"{name}.{member}" in found
            trivial = {"num_channels", "samples_per_channel"}
            assert function.__doc__ or member in trivial, f"{name}.{member} has no docstring"
