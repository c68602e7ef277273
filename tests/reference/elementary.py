"""Compute the polynomials of native/kernels/elementary_text.h; run this file to print them.

Minimax by Lawson's algorithm: least squares on a dense grid, each point weighted by the errors of the rounds
before, until the largest errors are equal.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def minimax(target: Array, powers: Array, scale: Array, rounds: int = 300) -> Array:
    """Return the coefficients c that minimise max |(powers @ c - target) / scale|."""
    weight = np.ones(len(target)) / len(target)
    for _ in range(rounds):
        root = np.sqrt(weight) / scale
        coefficients = np.linalg.lstsq(powers * root[:, None], target * root, rcond=None)[0]
        error = np.abs((powers @ coefficients - target) / scale)
        weight *= error + 1e-3 * error.max()
        weight /= weight.sum()
    return coefficients


def exp_polynomial() -> Array:
    """Return c of exp(r) = 1 + r + r^2 (c0 + c1 r + c2 r^2 + c3 r^3) for |r| <= ln(2)/2, relative error."""
    r = np.linspace(-np.log(2) / 2, np.log(2) / 2, 4001)
    powers = r[:, None] ** np.arange(2, 6)
    return minimax(np.exp(r) - 1 - r, powers, np.exp(r))


def log_polynomial() -> Array:
    """Return c of log(m) = 2 s + s^3 (c0 + c1 s^2 + c2 s^4), s = (m - 1)/(m + 1), for m from sqrt(1/2) to
    sqrt(2)."""
    s = np.linspace(1e-3, (np.sqrt(2) - 1) / (np.sqrt(2) + 1), 4001)
    powers = s[:, None] ** np.array([3, 5, 7])
    return minimax(2 * np.arctanh(s) - 2 * s, powers, 2 * np.arctanh(s))


if __name__ == "__main__":
    for name, fit in (("EXP", exp_polynomial), ("LOG", log_polynomial)):
        print(f"{name}: {', '.join(f'{np.float32(c):.9g}f' for c in fit())}")
