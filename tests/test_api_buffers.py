"""Buffers and figures that are not frames: a sentence that names the given and the expected, and nothing
changed. And frames whose Python code changes things while they are read.
"""

from __future__ import annotations

import array
import copy
import ctypes
import functools
import gc
import pickle
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from reference.drive import AnyFrame, frame_of

from apmpi import AudioFrame, AudioProcessingModule

ALL = {
    "echo_cancellation": True,
    "noise_suppression": True,
    "high_pass_filter": True,
    "auto_gain_control": True,
}
CALLS = ["process_stream", "process_reverse_stream"]
HUGE = 10**5000  # more digits than repr() gives


def sound(rng: np.random.Generator, samples: int = 160) -> np.ndarray:
    return rng.integers(-9000, 9000, samples).astype(np.int16)


# ---------- types of a buffer's elements

INT16_OR_BYTES: dict[str, Callable[[np.ndarray], Any]] = {
    "bytearray": lambda samples: bytearray(samples.tobytes()),
    "int16 view": lambda samples: memoryview(samples.copy()),
    "int16 array": lambda samples: samples.copy(),
    "columns": lambda samples: samples.reshape(-1, 1).copy(),
    "array.array": lambda samples: array.array("h", samples.tobytes()),
    "ctypes int16": lambda samples: (ctypes.c_int16 * len(samples)).from_buffer_copy(samples.tobytes()),
    "ctypes char": lambda samples: ctypes.create_string_buffer(samples.tobytes(), 2 * len(samples)),
    "int8 array": lambda samples: samples.view(np.int8).copy(),
    "char view": lambda samples: memoryview(bytearray(samples.tobytes())).cast("c"),
}
OTHER_ELEMENTS: dict[str, Any] = {
    "f": np.zeros(160, np.float32),
    "d": np.zeros(160),
    "e": np.zeros(160, np.float16),
    "O": np.array([object()] * 160),
    "H": np.zeros(160, np.uint16),
    ">h": np.zeros(160, ">i2"),
    "i": np.zeros(160, np.int32),
    "?": np.zeros(320, np.bool_),
    "Zf": np.zeros(160, np.complex64),
    "T{h:l:h:r:}": np.zeros(160, [("l", np.int16), ("r", np.int16)]),
}


@pytest.mark.parametrize("kind", INT16_OR_BYTES)
def test_int16_and_bytes_are_taken_from_any_buffer(rng: np.random.Generator, kind: str) -> None:
    samples = sound(rng)
    theirs, ours = AudioProcessingModule(**ALL), AudioProcessingModule(**ALL)
    for _ in range(2):  # the first frame makes the chain
        data, frame = INT16_OR_BYTES[kind](samples), frame_of(samples, 16000)
        theirs.process_reverse_stream(AnyFrame(data))
        ours.process_reverse_stream(frame)
        theirs.process_stream(AnyFrame(data))
        ours.process_stream(frame)
        assert bytes(memoryview(data)) == bytes(frame.data)


@pytest.mark.parametrize("elements", OTHER_ELEMENTS)
@pytest.mark.parametrize("call", CALLS)
def test_other_elements_are_refused_by_name(elements: str, call: str) -> None:
    """Floats taken for int16 were noise; overwritten pointers of an object array were a crash."""
    data = OTHER_ELEMENTS[elements]
    before = data.copy()
    for apm in (AudioProcessingModule(**ALL), running()):
        state = apm.save_state()
        with pytest.raises(TypeError, match=re.escape(f"format {elements!r}, expected int16 ('h') or bytes")):
            getattr(apm, call)(AnyFrame(data))
        assert np.array_equal(data, before) and apm.save_state() == state


@pytest.mark.parametrize("elements", OTHER_ELEMENTS)
def test_no_frame_is_made_of_other_elements(elements: str) -> None:
    with pytest.raises(TypeError, match=re.escape(f"format {elements!r}, expected int16 ('h') or bytes")):
        AudioFrame(memoryview(OTHER_ELEMENTS[elements]), 16000, 1, 80)


@pytest.mark.parametrize("data", [None, 5, "text", [0] * 160, object()])
@pytest.mark.parametrize("call", CALLS)
def test_what_is_no_buffer_is_named(data: object, call: str) -> None:
    with pytest.raises(TypeError, match=f"{call}: data is .*expected a buffer of int16 or bytes"):
        getattr(AudioProcessingModule(), call)(AnyFrame(data))


def test_no_state_is_read_from_other_elements() -> None:
    apm = AudioProcessingModule(**ALL)
    for data, words in ((np.zeros(9), "format 'd', expected bytes"), ("state", "'state', expected bytes")):
        with pytest.raises(TypeError, match=f"load_state: got .*{words}"):
            apm.load_state(data)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"load_state: .*released"):
        apm.load_state(released())  # type: ignore[arg-type]


def test_a_state_is_read_from_any_bytes() -> None:
    state = running().save_state()
    for kind in (bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)):
        apm = AudioProcessingModule(**ALL)
        apm.load_state(kind(state))
        assert apm.save_state() == state


# ---------- layout of a buffer's elements


def running() -> AudioProcessingModule:
    apm = AudioProcessingModule(**ALL)
    apm.process_stream(AudioFrame.create(16000, 1, 160))
    return apm


def released() -> memoryview:
    view = memoryview(bytearray(320))
    view.release()
    return view


ODD_BUFFERS: list[tuple[str, Callable[[], Any]]] = [
    ("contiguous", lambda: np.zeros(320, np.int16)[::2]),
    ("contiguous", lambda: np.zeros(160, np.int16)[::-1]),
    ("contiguous", lambda: np.zeros((2, 80), np.int16).T),
    ("contiguous", lambda: memoryview(bytearray(640)).cast("h")[::2]),
    ("released", released),
]


@pytest.mark.parametrize("words, data", ODD_BUFFERS)
@pytest.mark.parametrize("call", CALLS)
def test_pieces_and_released_buffers_are_runtime_errors(
    words: str, data: Callable[[], Any], call: str
) -> None:
    """The documented error, independent of the buffer type's own exception."""
    for apm in (AudioProcessingModule(**ALL), running()):
        state = apm.save_state()
        with pytest.raises(RuntimeError, match=words):
            getattr(apm, call)(AnyFrame(data()))
        assert apm.save_state() == state


def test_a_read_only_array_is_a_runtime_error_too() -> None:
    fixed = np.zeros(160, np.int16)
    fixed.flags.writeable = False
    for apm in (AudioProcessingModule(**ALL), running()):
        with pytest.raises(RuntimeError, match="read-only"):
            apm.process_stream(AnyFrame(fixed))
        apm.process_reverse_stream(AnyFrame(fixed))


def test_pieces_make_no_frame() -> None:
    for data in (np.zeros(320, np.int16)[::2], np.zeros((2, 80), np.int16).T):
        with pytest.raises(TypeError, match="C-contiguous"):
            AudioFrame(memoryview(data), 16000, 1, 80)
    assert AudioFrame(memoryview(np.zeros(0, np.int16)), 16000, 1, 0).data.tolist() == []
    assert AudioFrame.from_ndarray(np.zeros((0, 2), np.int16), 16000).to_ndarray().shape == (0, 2)


def test_a_buffer_cannot_shrink_while_it_is_processed() -> None:
    """The same frames from a thread that tries to shrink them: BufferError there, or the frame is too short.

    Runs until 200 frames had all their samples, since the order of the threads is undefined.
    """
    apm, data = AudioProcessingModule(**ALL), bytearray(960)
    done = threading.Event()

    def resize() -> None:
        while not done.is_set():
            try:
                del data[10:]
                data.extend(bytes(950))
            except BufferError:
                pass
            done.wait(0.0001)  # the other thread's turn, with a whole frame

    thread = threading.Thread(target=resize)
    thread.start()
    taken, refused, end_s = 0, 0, time.monotonic() + 30
    try:
        while taken < 200 and time.monotonic() < end_s:
            try:
                apm.process_stream(AnyFrame(data, 48000, 1, 480))
                taken += 1
            except RuntimeError as error:
                assert "holds" in str(error)
                refused += 1
                time.sleep(0.0001)  # the other thread's turn
    finally:
        done.set()
        thread.join()
    print(f"{taken} frames taken, {refused} refused")
    assert taken == 200


# ---------- figures

SHAPES = ("sample_rate", "num_channels", "samples_per_channel")


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("call", CALLS)
def test_figures_of_a_frame_are_whole_numbers(name: str, call: str) -> None:
    for wrong in (None, "1", 16000.0, 160.0, 1.0, float("nan"), [1]):
        with pytest.raises(TypeError, match=f"{call}: .*expected whole numbers"):
            getattr(running(), call)(AnyFrame(bytearray(640), **{name: wrong}))
    for huge in (HUGE, -HUGE):
        with pytest.raises(RuntimeError, match="4300 digits"):
            getattr(running(), call)(AnyFrame(bytearray(640), **{name: huge}))
    good = {"sample_rate": np.int64(16000), "num_channels": np.uint8(1), "samples_per_channel": np.int32(160)}
    getattr(running(), call)(AnyFrame(bytearray(320), **{name: good[name]}))


@pytest.mark.parametrize("make", [AudioFrame.create, lambda *shape: AudioFrame(bytes(640), *shape)])
def test_a_frame_has_a_shape_that_sound_can_have(make: Callable[..., AudioFrame]) -> None:
    for number, name in enumerate(SHAPES):
        for wrong in (-1, HUGE, -HUGE, 2**32, *([0] if number < 2 else [])):
            shape = [16000, 1, 160]
            shape[number] = wrong
            with pytest.raises(ValueError, match=f"{name}: got .*, expected [01] to"):
                make(*shape)
        for wrong in (None, 1.5, 160.0, "160"):
            odd: list[Any] = [16000, 1, 160]
            odd[number] = wrong
            with pytest.raises(TypeError, match=f"{name}: got {wrong!r}, expected a whole number"):
                make(*odd)
    with pytest.raises(ValueError):  # a product of two negative counts is positive
        make(16000, -1, -160)
    frame = make(np.int64(16000), np.int64(1), np.int64(160))
    assert type(frame.sample_rate) is int and frame.duration == 0.01


def test_a_wav_header_has_its_limits() -> None:
    for rate_hz, channels in ((16000, 40000), (2**32 - 1, 2)):
        with pytest.raises(ValueError, match=f"to_wav_bytes: {channels} channels at {rate_hz} Hz"):
            AudioFrame(b"", rate_hz, channels, 0).to_wav_bytes()


def test_numbers_without_digits_are_refused_in_words() -> None:
    apm = running()
    for wrong in (HUGE, -HUGE):
        with pytest.raises(RuntimeError, match="set_stream_delay_ms: got a number of more than 4300 digits"):
            apm.set_stream_delay_ms(wrong)
        with pytest.raises(ValueError, match="gain_max_db: got a number of more than 4300 digits"):
            apm.configure(gain_max_db=wrong)


# ---------- frames with Python code of their own


class Meddling:
    """A frame that calls the module when it is read."""

    sample_rate, samples_per_channel = 16000, 160

    def __init__(self, meddle: Callable[[], None], channels: int = 1) -> None:
        self._meddle, self._samples = meddle, bytearray(320 * channels)
        self.num_channels = channels

    @property
    def data(self) -> memoryview:
        self._meddle()
        return memoryview(self._samples)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("first", [True, False])
def test_a_frame_may_call_the_module_that_reads_it(call: str, first: bool) -> None:
    """Regression: the module deadlocked on its own lock at the first frame."""
    apm = AudioProcessingModule(**ALL) if first else running()
    state = running().save_state()

    def meddle() -> None:
        for frame in (AudioFrame.create(16000, 1, 160), AudioFrame.create(16000, 2, 160)):
            apm.process_stream(frame)
        apm.process_reverse_stream(AudioFrame.create(16000, 1, 160))
        apm.configure(noise_suppression="low")
        apm.set_stream_delay_ms(20)
        apm.stats()
        apm.reset()
        apm.process_stream(AudioFrame.create(16000, 1, 160))
        apm.load_state(state)

    thread = threading.Thread(target=lambda: getattr(apm, call)(Meddling(meddle)), daemon=True)
    thread.start()
    thread.join(20.0)
    assert not thread.is_alive(), "locked"
    apm.process_stream(AudioFrame.create(16000, 1, 160))


def test_a_finaliser_may_call_the_module_at_any_time() -> None:
    """The garbage collector runs it inside any call, also in the thread that holds the module's lock."""
    apm, called = AudioProcessingModule(**ALL), []

    class Dying:
        def __del__(self) -> None:
            apm.reset()
            apm.configure(noise_suppression=True)
            called.append(AudioProcessingModule())

    def leave_garbage() -> None:
        gc.collect()
        dying = Dying()
        dying.itself = dying  # type: ignore[attr-defined]

    def work() -> None:
        for objects in range(2, 40):  # so many are made before the collector runs
            for channels in (1, 2):  # another shape: a new chain, under the lock
                frame = Meddling(leave_garbage, channels)
                gc.set_threshold(objects)
                apm.process_stream(frame)

    thread = threading.Thread(target=work, daemon=True)
    before = gc.get_threshold()
    try:
        thread.start()
        thread.join(60.0)
    finally:
        gc.set_threshold(*before)
    assert not thread.is_alive(), "locked"
    gc.collect()
    print(f"{len(called)} finalisers ran")
    assert called


def test_a_state_that_changes_while_it_is_read_is_one_or_the_other() -> None:
    """The state that was checked is restored, even from a bytearray that another thread writes to."""
    state = running().save_state()
    shared, done = bytearray(state), threading.Event()

    def write() -> None:
        while not done.is_set():
            shared[100:-100] = bytes(len(state) - 200)
            shared[:] = state

    thread = threading.Thread(target=write)
    thread.start()
    taken = 0
    try:
        for _ in range(300):
            apm = AudioProcessingModule(**ALL)
            try:
                apm.load_state(shared)
            except ValueError as error:
                assert "load_state: " in str(error)
                continue
            taken += 1
            assert apm.save_state() == state
    finally:
        done.set()
        thread.join()
    print(f"{taken} of 300 states taken")
    assert taken


# ---------- copies


class Tagged(AudioFrame):
    """A frame of a program's own kind."""

    def __init__(self, tag: str) -> None:
        super().__init__(bytearray(range(8)), 16000, 2, 2, userdata={"list": [1]})
        self.tag = tag


def pickled(frame: AudioFrame, protocol: int) -> AudioFrame:
    again = pickle.loads(pickle.dumps(frame, protocol))
    assert isinstance(again, AudioFrame)
    return again


COPIES: dict[str, Callable[[AudioFrame], AudioFrame]] = {
    f"pickle {protocol}": functools.partial(pickled, protocol=protocol)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
} | {"deepcopy": copy.deepcopy, "copy": copy.copy}


@pytest.mark.parametrize("how", COPIES)
def test_a_copied_frame_is_the_same_frame(how: str) -> None:
    for frame in (
        AudioFrame(bytes(range(12)), 16000, 2, 3, userdata={"list": [1]}),
        AudioFrame(bytearray(range(100)), 48000, 1, 7),  # a buffer longer than the frame
        AudioFrame(b"", 8000, 1, 0),
        Tagged("mine"),
    ):
        again = COPIES[how](frame)
        assert type(again) is type(frame) and getattr(again, "tag", "") == getattr(frame, "tag", "")
        assert again.data == frame.data and again.data.format == "h" and not again.data.readonly
        for name in (*SHAPES, "duration", "userdata"):
            assert getattr(again, name) == getattr(frame, name), name
        assert again.to_wav_bytes() == frame.to_wav_bytes()
        shared = how == "copy"  # as copy.copy() of anything, and as LiveKit's
        assert (again.userdata is frame.userdata) == shared
        if len(frame.data):
            frame.data[0] = 1234
            assert (again.data[0] == 1234) == shared


def test_a_pickled_frame_is_processed(rng: np.random.Generator) -> None:
    frame = frame_of(sound(rng), 16000)
    again = pickle.loads(pickle.dumps(frame))
    for apm, given in ((AudioProcessingModule(**ALL), frame), (AudioProcessingModule(**ALL), again)):
        for _ in range(3):
            apm.process_stream(given)
    assert frame.data == again.data
