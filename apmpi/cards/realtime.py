"""What keeps other work from delaying the audio thread, as far as the system permits it.

real-time scheduling   the audio thread above all that a machine usually runs; this program's other threads
                       below it, but still real time: one of them that is kept from running while it has
                       the interpreter would hold up the audio thread
a core of its own      where there are four or more: the last one, while the first ones serve interrupts
locked memory          a page read back from an SD card takes longer than a frame
no garbage collection  what exists at the start is never looked at again (gc.freeze), and the little that
                       comes later is collected by the reporter's thread
"""

import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Iterator

# Above the 50 that Linux gives its interrupt threads where it has any: a busy disk or network must wait.
AUDIO_PRIORITY = 60
OTHERS_PRIORITY = 1
# How long another thread may keep the interpreter when the audio thread wants it; Python's 5 ms are half a
# frame.
SWITCH_INTERVAL_S = 0.0005
# Locked memory is all there at once: Python's usual 8 MiB per thread would be too.
THREAD_STACK_BYTES = 512 * 1024
# With fewer cores one that only waits for sound is missed elsewhere, and the scheduler does as well.
CORES_MIN = 4
MCL_CURRENT, MCL_FUTURE = 1, 2  # <sys/mman.h>

# Cores for all threads but the audio thread: new threads inherit its one.
_other_cores: set[int] = set()


@contextlib.contextmanager
def real_time() -> Iterator[list[str]]:
    """Makes the calling thread the audio thread. Gives what was not permitted, in words."""
    refused = []
    scheduler, parameters, cores = os.sched_getscheduler(0), os.sched_getparam(0), os.sched_getaffinity(0)
    try:
        if scheduler != os.SCHED_FIFO:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(AUDIO_PRIORITY))
    except OSError as error:
        refused.append(f"real-time scheduling ({error.strerror})")
    try:
        os.sched_setaffinity(0, audio_cores(cores))
        _other_cores.update(cores - audio_cores(cores) or cores)
    except OSError as error:
        refused.append(f"a core of its own ({error.strerror})")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(MCL_CURRENT | MCL_FUTURE) != 0:
        refused.append(f"locked memory ({os.strerror(ctypes.get_errno())})")
    switch_interval_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield refused
    finally:
        gc.enable()
        gc.unfreeze()
        sys.setswitchinterval(switch_interval_s)
        libc.munlockall()
        os.sched_setaffinity(0, cores)
        _other_cores.clear()
        os.sched_setscheduler(0, scheduler, parameters)


def audio_cores(allowed: set[int]) -> set[int]:
    return {max(allowed)} if len(allowed) >= CORES_MIN else allowed


def give_way() -> None:
    """Puts the calling thread below the audio thread, and off its core, if that one is real time."""
    if os.sched_getscheduler(0) == os.SCHED_FIFO:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(OTHERS_PRIORITY))
    if _other_cores:
        os.sched_setaffinity(0, _other_cores)
