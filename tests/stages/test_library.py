"""The signal path's object files contain no allocation, no lock, no input and no output."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

# Arithmetic of libm, and copies within the caller's memory.
ALLOWED = {"memcpy", "memmove", "memset"}
ALLOWED |= {
    name + "f"
    for name in (
        "cos",
        "exp",
        "fabs",
        "fmax",
        "fmin",
        "fmod",
        "log",
        "log10",
        "log1p",
        "lrint",
        "pow",
        "sin",
        "sqrt",
    )
}
ALLOWED |= {
    "cos",
    "exp",
    "log",
    "pow",
    "sin",
    "sincos",
    "sincosf",
    "sqrt",
    "tan",
    "_GLOBAL_OFFSET_TABLE_",
    "__stack_chk_fail",
}
ALLOWED |= {"__cpu_model"}  # the compiler's own record of an x86-64 processor's features


def symbols(archive: Path, *options: str) -> set[str]:
    listing = subprocess.run(
        ["nm", "--format=posix", *options, archive], check=True, capture_output=True, text=True
    )
    return {line.split()[0] for line in listing.stdout.splitlines() if len(line.split()) > 1}


def test_the_core_calls_nothing_but_arithmetic(library: ctypes.CDLL) -> None:
    archive = Path(library._name).parent / "native" / "libapmpi_core.a"
    defined = symbols(archive, "--defined-only")
    assert "apm_capture" in defined
    called = symbols(archive, "--undefined-only") - defined
    print(sorted(called))
    assert called <= ALLOWED


def test_the_core_keeps_no_state_of_its_own(library: ctypes.CDLL) -> None:
    """Two chains in one program share nothing: no variable outlives a call, not even a static one."""
    archive = Path(library._name).parent / "native" / "libapmpi_core.a"
    listing = subprocess.run(
        ["nm", "--format=sysv", "--defined-only", archive], check=True, capture_output=True, text=True
    )
    rows = [[field.strip() for field in line.split("|")] for line in listing.stdout.splitlines()]
    # Tables of functions are constants too, but their addresses are filled in by the loader (.data.rel.ro).
    variables = [
        row[0]
        for row in rows
        if len(row) == 7 and row[2] in "bBdDC" and not row[6].startswith(".data.rel.ro")
    ]
    assert not variables, variables
