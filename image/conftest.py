"""Options of test_machine.py, and the modules beside it."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
BUILT = Path(__file__).resolve().parents[1] / "build/image"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--built", type=Path, default=BUILT, help="folder of the image")
    parser.addoption("--cuts", type=int, default=10, help="how often the power is cut")
    parser.addoption("--seed", type=int, default=1, help="when that happens")
