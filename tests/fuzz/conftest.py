"""The option that says for how long each fuzzer runs."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-seconds", type=float, default=60.0, help="seconds that each fuzzer runs")
