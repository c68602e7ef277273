"""Callers whose two threads are late: a far-end frame belongs to the microphone frame of its number."""

from __future__ import annotations

import threading
import time

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.drive import frame_of

from apmpi import AudioProcessingModule

RATE_HZ, BLOCK = 16000, 160
FRAME_MS = 10.0
SETTLED_S = 3.5  # the canceller has converged by then
LEAST_DB = 45.0
DELAY_MS = 120

Samples = npt.NDArray[np.int16]
Calls = list[tuple[str, int]]


def steps_of_noise(rng: np.random.Generator, seconds: float, delay_ms: int) -> tuple[Samples, Samples]:
    """Far end, noise whose level changes every 100 ms, and its echo at -6 dB, delay_ms later."""
    steps = round(seconds * 10)
    level = np.repeat(10.0 ** (rng.uniform(-45.0, -20.0, steps) / 20.0), RATE_HZ // 10)
    far = np.round(np.clip(level * rng.standard_normal(len(level)), -1.0, 1.0) * 32767.0)
    return far.astype(np.int16), echo_of(far, delay_ms)


def echo_of(far: npt.NDArray[np.float64] | Samples, delay_ms: int) -> Samples:
    late = RATE_HZ * delay_ms // 1000
    return np.round(np.concatenate([np.zeros(late), 0.5 * far])[: len(far)]).astype(np.int16)


class Call:
    """One module with its far end and its microphone, frame by frame by their numbers."""

    def __init__(self, far: Samples, mic: Samples) -> None:
        self.far, self.mic, self.out = far, mic, np.zeros_like(mic)
        self.frames = len(far) // BLOCK
        self.apm = AudioProcessingModule(echo_cancellation=True)

    def play(self, number: int) -> None:
        self.apm.process_reverse_stream(frame_of(self.far[number * BLOCK :][:BLOCK], RATE_HZ))

    def hear(self, number: int) -> None:
        frame = frame_of(self.mic[number * BLOCK :][:BLOCK], RATE_HZ)
        self.apm.process_stream(frame)
        self.out[number * BLOCK :][:BLOCK] = np.frombuffer(frame.data, np.int16)

    def follow(self, calls: Calls) -> None:
        for kind, number in calls:
            (self.play if kind == "far" else self.hear)(number)

    def reduction_db(self) -> npt.NDArray[np.float64]:
        """Echo reduction in dB in each half second after convergence; infinity where there is no echo."""
        late, half = round(self.apm.latency_ms * RATE_HZ / 1000), RATE_HZ // 2
        count = (len(self.mic) - late) // half
        before, after = (
            np.sum(x[: count * half].astype(np.float64).reshape(count, half) ** 2, axis=1)
            for x in (self.mic, self.out[late:])
        )
        ratios = np.where(before > 0.0, before, np.inf) / np.maximum(after, 1.0)
        return np.asarray(10.0 * np.log10(ratios)[round(2 * SETTLED_S) :])


def in_turns(frames: int, missing: set[int] | range = range(0)) -> Calls:
    return [(kind, b) for b in range(frames) for kind in ("far", "mic") if kind == "mic" or b not in missing]


def stalled(frames: int, stalls: list[tuple[str, float, float]]) -> Calls:
    """Return calls every 10 ms, the microphone's half a frame after the far end's, in the order of their
    times: a call during a stall (thread, start, duration; ms) is made at the stall's end.
    """
    calls = []
    for order, kind in enumerate(("far", "mic")):
        due_ms = FRAME_MS * (np.arange(frames) + 0.5 * order)
        for whose, start_ms, length_ms in sorted(stalls):
            inside = (due_ms >= start_ms) & (due_ms < start_ms + length_ms) & (whose == kind)
            due_ms[inside] = start_ms + length_ms
        calls += [(at_ms, order, b, kind) for b, at_ms in enumerate(due_ms)]
    return [(kind, b) for _, _, b, kind in sorted(calls)]


@pytest.mark.parametrize("late_ms", [10.0, 30.0, 90.0])
def test_late_far_end_frames_take_their_places(rng: np.random.Generator, late_ms: float) -> None:
    """Some frames come late, all at once, before their echo: it is cancelled as usual."""
    call = Call(*steps_of_noise(rng, 8.0, DELAY_MS))
    call.follow(stalled(call.frames, [("far", 5000.0, late_ms)]))
    reduction_db = call.reduction_db()
    print(f"{late_ms:.0f} ms late: {np.round(reduction_db)} dB")
    assert reduction_db.min() > LEAST_DB


def test_late_frames_may_come_in_parts(rng: np.random.Generator) -> None:
    """The far end is 80 ms late and catches up in three bursts, with microphone frames between."""
    call = Call(*steps_of_noise(rng, 8.0, DELAY_MS))
    calls = in_turns(call.frames, range(500, 512))
    for first, last, before in ((500, 505, 508), (505, 506, 509), (506, 512, 511)):
        calls[calls.index(("mic", before)) : calls.index(("mic", before))] = [
            ("far", b) for b in range(first, last)
        ]
    call.follow(calls)
    reduction_db = call.reduction_db()
    print(f"in parts: {np.round(reduction_db)} dB")
    assert reduction_db.min() > LEAST_DB


@st.composite
def whose_stalls(draw: st.DrawFn) -> list[tuple[str, float, float]]:
    """Stalls for both threads, of 10 to 200 ms at random times, one every 0.3 to 2 s."""
    stalls = []
    for whose in ("far", "mic"):
        start_ms = 4000.0
        while start_ms < 8000.0:
            start_ms += draw(st.floats(100.0, 1800.0))
            length_ms = draw(st.floats(10.0, 200.0))
            stalls.append((whose, start_ms, length_ms))
            start_ms += length_ms
    return stalls


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), delay_ms=st.integers(220, 400), stalls=whose_stalls())
def test_both_threads_may_be_late(seed: int, delay_ms: int, stalls: list[tuple[str, float, float]]) -> None:
    """An echo that arrives after its late far end is cancelled as without the delay."""
    call = Call(*steps_of_noise(np.random.default_rng(seed), 9.0, delay_ms))
    call.follow(stalled(call.frames, stalls))
    worst_db = call.reduction_db().min()
    print(f"seed {seed}, echo {delay_ms} ms late, {len(stalls)} stalls: {worst_db:.1f} dB at least")
    assert worst_db > LEAST_DB


@pytest.mark.parametrize("burst", [1, 5, 10])
@pytest.mark.parametrize("paused_frames", [1, 3, 10, 29, 31, 50])
def test_a_pause_costs_nothing(rng: np.random.Generator, paused_frames: int, burst: int) -> None:
    """The far end pauses, which is played as silence, and continues in its usual way, frame by frame or in
    bursts.
    """
    first = 600
    pause = range(first, first + paused_frames)
    far, _ = steps_of_noise(rng, 10.0, DELAY_MS)
    far[pause.start * BLOCK : pause.stop * BLOCK] = 0
    call = Call(far, echo_of(far, DELAY_MS))
    calls: Calls = []
    for b in range(call.frames):
        start = b if b < first else b - pause.stop
        if start >= 0 and start % burst == 0:
            calls += [
                ("far", number) for number in range(b, min(b + burst, call.frames)) if number not in pause
            ]
        calls.append(("mic", b))
    call.follow(calls)
    reduction_db = call.reduction_db()
    print(f"{paused_frames} frames paused, bursts of {burst}: {np.round(reduction_db)} dB")
    assert reduction_db.min() > LEAST_DB


def test_two_threads_on_a_busy_machine(rng: np.random.Generator) -> None:
    """Two plain threads that sleep until their next frame is due, and one that blocks both at intervals:
    every half second is 40 dB down, unless a frame of it, or of the 2 s before, was later than can be
    compensated.
    """
    delay_ms, seconds = 280, 9.0
    call = Call(*steps_of_noise(rng, seconds, delay_ms))
    made: Calls = []
    start_s, done = time.monotonic() + 0.1, threading.Event()

    def in_time(kind: str, offset_s: float) -> None:
        for number in range(call.frames):
            time.sleep(max(0.0, start_s + offset_s + 0.01 * number - time.monotonic()))
            (call.play if kind == "far" else call.hear)(number)
            made.append((kind, number))

    def compute() -> None:
        while not done.wait(0.15):
            sum(range(2_000_000))  # holds the interpreter's lock for about 50 ms

    talkers = [threading.Thread(target=in_time, args=args) for args in (("far", 0.0), ("mic", 0.005))]
    other = threading.Thread(target=compute)
    for thread in (*talkers, other):
        thread.start()
    for thread in talkers:
        thread.join()
    done.set()
    other.join()
    played, late_frames = 0, []
    for kind, number in made:
        played += kind == "far"
        if kind == "mic":
            late_frames.append(number + 1 - played)
    too_late = [not -50 < frames < delay_ms / FRAME_MS - 2 for frames in late_frames]
    reduction_db = call.reduction_db()
    ends = range(50 * (round(2 * SETTLED_S) + 1), call.frames, 50)
    judged = reduction_db[[not any(too_late[end - 250 : end]) for end in ends][: len(reduction_db)]]
    print(f"late by {min(late_frames)} to {max(late_frames)} frames; {np.round(judged)} dB")
    assert len(judged) > 0 and judged.min() > 40.0
