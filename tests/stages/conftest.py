"""The native stages as functions: built once, with the product's compiler flags, called through ctypes."""

from __future__ import annotations

import ctypes
import fcntl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "stages"


class Stages:
    """Functions of the library. Arrays are passed as float32 pointers, floats as float, ints as int."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._handles: list[ctypes.c_void_p] = []

    def new(self, name: str, *arguments: float) -> ctypes.c_void_p:
        """Handle of a stage; freed with the fixture."""
        function = self._library[f"{name}_new"]
        function.restype = ctypes.c_void_p
        handle = ctypes.c_void_p(function(*map(_argument, arguments)))
        self._handles.append(handle)
        return handle

    def call(self, name: str, *arguments: object, returns: Callable[..., object] | None = None) -> object:
        function = self._library[name]
        function.restype = returns
        return function(*map(_argument, arguments))

    def free(self) -> None:
        for handle in self._handles:
            self._library.handle_free(handle)
        self._handles.clear()


def _argument(value: object) -> object:
    if isinstance(value, float):
        return ctypes.c_float(value)
    if isinstance(value, np.ndarray):
        assert value.dtype == np.float32 and value.flags.c_contiguous
        return value.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    return value


@pytest.fixture(scope="session")
def library() -> ctypes.CDLL:
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:  # another run of the tests may build at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (["cmake", "-S", HERE, "-B", BUILD], ["cmake", "--build", BUILD, "--parallel", "2"]):
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            assert done.returncode == 0, done.stdout
        return ctypes.CDLL(str(BUILD / "libapmpi_stages.so"))


@pytest.fixture
def stages(library: ctypes.CDLL) -> Iterator[Stages]:
    handles = Stages(library)
    yield handles
    handles.free()
