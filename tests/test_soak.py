"""The short version of tests/soak.py: a minute and a half, with about one fault of every kind."""

from __future__ import annotations

import pytest
import soak


@pytest.mark.alone
def test_some_minutes_with_faults(request: pytest.FixtureRequest) -> None:
    summary, wrong = soak.soak(90.0, speed=4.0, seed=request.config.getoption("--seed"))
    print(summary)
    assert not wrong
