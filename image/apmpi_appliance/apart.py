"""Parser of user files in a child process without privileges.

The programs of the image run as root, and anybody can write to the boot partition. So its files are parsed in
a child process that has given up root, can write no file, and is bounded in time and memory. Whatever happens
to it (an exception of any kind, too little memory, a crash) is reported as one sentence about the file.
"""

import json
import os
import resource
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from apmpi.errors import ConfigError, FileError

# 64 KiB of the slowest YAML, a list of 32000 items, take 1.4 s on an x86-64 core; a Cortex-A53 at 1 GHz may
# be ten times slower.
TIMEOUT_S = 20.0
# Address space beyond that at the start of the child; such a file takes 20 MiB.
MEMORY_MAX_BYTES = 128 << 20
ANSWER_MAX_BYTES = 1 << 20
NOBODY = 65534  # Debian's user and group
# Arguments of subprocess for a program without privileges.
AS_NOBODY: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []}


def call(name: str, function: Callable[..., Any], *arguments: object) -> Any:
    """Return the result of `function`, anything that JSON holds. Raises FileError.

    `name` is the file's name, for errors other than the FileError and ConfigError that `function` raises.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _answer(writing, name, function, arguments)
    os.close(writing)
    try:
        text = _read(reading)
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    try:
        answer = json.loads(text)
        problem = answer["problem"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise FileError(f"{name}: not readable (its reader failed), expected plain text") from None
    if problem is not None:
        raise FileError(str(problem))
    return answer["value"]


def _answer(writing: int, name: str, function: Callable[..., Any], arguments: tuple[object, ...]) -> NoReturn:
    """Run `function` in the child, write its answer and exit."""
    answer: dict[str, object] = {"problem": None, "value": None}
    try:
        _give_up_privileges()
        answer["value"] = function(*arguments)
    except (FileError, ConfigError) as error:
        answer["problem"] = str(error)
    except BaseException as error:
        answer["problem"] = f"{name}: not readable ({type(error).__name__}), expected plain text"
    try:
        text = json.dumps(answer).encode()
        while text:
            text = text[os.write(writing, text) :]
    finally:
        os._exit(0)


def _give_up_privileges() -> None:
    # The child has the text already, and writes nothing but its answer.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (int(TIMEOUT_S), int(TIMEOUT_S)))
    # statm: pages of address space, proc_pid_statm(5).
    size_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    memory_bytes = size_bytes + MEMORY_MAX_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def _read(reading: int) -> bytes:
    """Return all that the child writes, nothing if it is late or too long."""
    text = b""
    end_s = time.monotonic() + TIMEOUT_S
    while len(text) <= ANSWER_MAX_BYTES:
        left_s = end_s - time.monotonic()
        if left_s <= 0 or not select.select([reading], [], [], left_s)[0]:
            return b""
        more = os.read(reading, 65536)
        if not more:
            return text
        text += more
    return b""
