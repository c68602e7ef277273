"""The kernels' elementary functions: minimax coefficients, and errors as stated in kernels.h."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from reference import elementary
from scipy.special import exp1

KERNELS = Path(__file__).parents[2] / "native" / "kernels"
COUNT = 1 << 20


@pytest.mark.parametrize(
    ("polynomial", "first"), [(elementary.exp_polynomial, "0.499"), (elementary.log_polynomial, "0.666")]
)
def test_coefficients_are_what_the_script_computes(polynomial, first: str) -> None:
    statements = (KERNELS / "elementary_text.h").read_text().split(";")
    (statement,) = (statement for statement in statements if f"SPLAT({first}" in statement)
    written = [float(number) for number in re.findall(r"SPLAT\(([\d.]+)f\)", statement)]
    wanted = polynomial()
    print(f"{written} in the header, {list(wanted)} computed")
    # a change in the fifth digit of a coefficient changes the result by less than a float's last place
    np.testing.assert_allclose(written, wanted, rtol=1e-5)


def worst(stages, name: str, x: np.ndarray, wanted: np.ndarray, relative: bool) -> float:
    x = x.astype(np.float32)
    assert len(x) % 8 == 0, "a kernel takes up to eight floats at a time"
    out = np.empty_like(x)
    stages.call(f"{name}_run", len(x), x, out)
    error = np.abs(out - wanted) / (np.abs(wanted) if relative else 1.0)
    print(f"{name}: worst error {error.max():.2e} at {x[error.argmax()]:g}")
    return float(error.max())


def test_exp(stages) -> None:
    x = np.linspace(-87, 88, COUNT).astype(np.float32)
    assert worst(stages, "exp", x, np.exp(x.astype(float)), relative=True) < 2.5e-7


def test_exp_limits_its_argument(stages) -> None:
    x = np.repeat(np.array([-1e30, -100, 100, 1e30], np.float32), 2)
    assert worst(stages, "exp", x, np.exp(np.repeat([-87.0, 88.0], 4)), relative=True) < 2.5e-7


def test_log(stages) -> None:
    x = np.exp(np.linspace(np.log(1.2e-38), np.log(3.4e38), COUNT)).astype(np.float32)
    assert worst(stages, "log", x, np.log(x.astype(float)), relative=False) < 4e-6  # half of 88's last place
    x = np.linspace(0.5, 2, COUNT).astype(np.float32)
    assert worst(stages, "log", x, np.log(x.astype(float)), relative=False) < 1e-7


def test_sigmoid_and_tanh(stages) -> None:
    x = np.linspace(-100, 100, COUNT).astype(np.float32)
    assert worst(stages, "sigmoid", x, 1 / (1 + np.exp(-x.astype(float))), relative=False) < 1.5e-7
    assert worst(stages, "tanh", x, np.tanh(x.astype(float)), relative=False) < 3e-7


def test_log_spectral_gain(stages) -> None:
    wiener, posterior = (
        x.ravel().astype(np.float32)
        for x in np.meshgrid(np.linspace(0.003, 1, 1000), np.geomspace(1e-4, 1e4, 1000))
    )
    out = np.empty_like(wiener)
    stages.call("log_spectral_gain_run", len(out), wiener, posterior, out)
    w = wiener.astype(float)
    wanted = np.minimum(1.0, w * np.exp(exp1(np.maximum(w * posterior, 1e-6)) / 2))
    error = np.abs(out / wanted - 1)
    at = error.argmax()
    print(f"worst error {error[at]:.2e} at w = {wiener[at]:g}, posterior {posterior[at]:g}")
    assert error[at] < 1e-5
