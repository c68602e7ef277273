"""Real-time measures for the audio thread, as far as the system permits them.

real-time scheduling   the audio thread above everything that usually runs on the machine; this program's
                       other threads below it, but still real time: a thread that is preempted while it holds
                       the interpreter lock would block the audio thread
a core of its own      where there are four or more: the last one, since the first ones serve interrupts
locked memory          a page read back from an SD card takes longer than a frame
no garbage collection  objects that exist at the start are exempt (gc.freeze), and the few later ones are
                       collected by the reporter's thread
"""

import contextlib
import ctypes
import gc
import os
import sys
import threading
from collections.abc import Iterator

# SCHED_FIFO priority above the 50 of Linux's interrupt threads, where it has any: disk and network can wait.
AUDIO_PRIORITY = 60
# Priority of this program's other threads: the lowest real-time one.
OTHERS_PRIORITY = 1
# Time after which another thread must release the interpreter lock; Python's default, 5 ms, is half a frame.
SWITCH_INTERVAL_S = 0.0005
# Stack of each thread. Locked memory is resident as a whole, and so would be Python's usual 8 MiB.
THREAD_STACK_BYTES = 512 * 1024
# Cores from which the audio thread gets one. With fewer, the rest of the system lacks the core, and the
# scheduler alone is as good.
CORES_MIN = 4
MCL_CURRENT, MCL_FUTURE = 1, 2  # <sys/mman.h>
M_ARENA_MAX = -8  # <malloc.h>

# Cores of all threads but the audio thread, whose core new threads inherit.
_other_cores: set[int] = set()


def limit_thread_memory() -> None:
    """Limits the memory that each later thread adds, before it is locked: its stack, and an arena of glibc's
    allocator, which reserves 64 MiB. All threads share one arena then. Its lock is held for microseconds, by
    threads that are real-time, too, as the interpreter's is."""
    threading.stack_size(THREAD_STACK_BYTES)
    ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


@contextlib.contextmanager
def real_time() -> Iterator[list[str]]:
    """Makes the calling thread the audio thread. Yields the measures that were not permitted, in words."""
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
    """Return the core of the audio thread, or all `allowed` ones if they are fewer than CORES_MIN."""
    return {max(allowed)} if len(allowed) >= CORES_MIN else allowed


def give_way() -> None:
    """Lowers the calling thread's priority below the audio thread's, and moves it off that core, if it
    is real time."""
    if os.sched_getscheduler(0) == os.SCHED_FIFO:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(OTHERS_PRIORITY))
    if _other_cores:
        os.sched_setaffinity(0, _other_cores)
