"""The same calls for livekit.rtc and for apmpi, with their results.

    python tests/conformance.py               the table, in Markdown
    python tests/conformance.py livekit N     the results of livekit.rtc from call N on, a line for each

A call that makes livekit.rtc abort ends the interpreter, so its calls run in processes of their own.
"""

from __future__ import annotations

import copy
import importlib.metadata
import pickle
import subprocess
import sys
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

ABORTS = "aborts the interpreter"
TOO_SHORT = "ValueError: data length must be >= num_channels * samples_per_channel * sizeof(int16)"
ODD = "ValueError: data length must be a multiple of sizeof(int16)"
NOT_BYTES = "TypeError: expected bytes, bytearray, or memoryview, got <class '{}'>"
NO_SOUND = "no sound has such a rate or so many channels"
NO_BUFFER = "ValueError: Buffer size too small (0 instead of at least 1 bytes)"
STRICT = "exactly 10 ms, as documented; what does not fit is a RuntimeError, never an abort"
METHODS = ("process_stream", "process_reverse_stream")


@dataclass
class Case:
    """A call, what comes of it in apmpi and, where deliberately not the same, in livekit.rtc, and the reason.

    What comes of it: the value's repr(), or the exception and its message; of a RuntimeError only the type
    is compared, for messages are each library's own.
    """

    call: str
    apmpi: str
    livekit: str = ""
    reason: str = ""

    @property
    def expected_of_livekit(self) -> str:
        return self.livekit or self.apmpi


CASES = [
    # ---- AudioFrame
    Case(r"AudioFrame(b'\1\0\2\0', 16000, 1, 2).data.tolist()", "[1, 2]"),
    Case("writes_through(bytearray(4))", "True"),
    Case("writes_through(memoryview(bytearray(4)))", "True"),
    Case("AudioFrame(bytes(8), 16000, 1, 2).data.tolist()", "[0, 0, 0, 0]"),
    Case("AudioFrame(numpy.zeros(2, 'int16'), 16000, 1, 2)", NOT_BYTES.format("numpy.ndarray")),
    Case("AudioFrame('text', 16000, 1, 2)", NOT_BYTES.format("str")),
    Case("AudioFrame(None, 16000, 1, 2)", NOT_BYTES.format("NoneType")),
    Case("AudioFrame([0, 0], 16000, 1, 2)", NOT_BYTES.format("list")),
    Case("AudioFrame(bytes(3), 16000, 1, 2)", TOO_SHORT),
    Case("AudioFrame(bytes(5), 16000, 1, 2)", ODD),
    Case("AudioFrame(bytes(3), 16000, 1, 1)", ODD),
    Case(
        "AudioFrame(memoryview(bytearray(8)).cast('h')[::2], 16000, 1, 2)",
        "TypeError: memoryview: casts are restricted to C-contiguous views",
    ),
    Case(
        "AudioFrame(bytes(4), 16000, -1, 2).num_channels",
        "ValueError: num_channels: got -1, expected 1 to 65535",
        "-1",
        NO_SOUND,
    ),
    Case(
        "AudioFrame(memoryview(numpy.zeros(2, 'float32')), 16000, 1, 2).num_channels",
        "TypeError: data has elements of format 'f', expected int16 ('h') or bytes ('B')",
        "1",
        "floats that are taken for int16 are noise",
    ),
    Case("AudioFrame.create(48000, 2, 480).data.tolist() == [0] * 960", "True"),
    Case(
        "AudioFrame.create(48000, -1, 480)",
        "ValueError: num_channels: got -1, expected 1 to 65535",
        "ValueError: negative count",
        NO_SOUND,
    ),
    Case("AudioFrame.create(48000, 2, 480).duration", "0.01"),
    Case(
        "AudioFrame.create(0, 1, 1).duration",
        "ValueError: sample_rate: got 0, expected 1 to 4294967295",
        "ZeroDivisionError: division by zero",
        NO_SOUND,
    ),
    Case("AudioFrame.create(8000, 2, 80).data.format", "'h'"),
    Case("AudioFrame.create(8000, 2, 80).data.readonly", "False"),
    Case(
        "AudioFrame(bytes(4), 16000, 1, 2).data.readonly",
        "False",
        "True",
        "frames are processed in place: read-only bytes are copied at once, so data never goes stale",
    ),
    Case("AudioFrame.create(8000, 2, 80).userdata", "{}"),
    Case(
        "[copied(how) for how in ('pickle', 'deepcopy', 'copy')]",
        "[(False, False), (False, False), (True, True)]",
    ),
    Case("AudioFrame(b'', 8000, 1, 0, userdata={'a': 1}).userdata", "{'a': 1}"),
    Case("[getattr(AudioFrame.create(8000, 2, 80), name) for name in NUMBERS]", "[8000, 2, 80]"),
    Case("digest(AudioFrame(bytes(range(160)), 8000, 1, 80).to_wav_bytes())", "'45ea64aa'"),
    Case(
        "len(AudioFrame(bytes(320), 8000, 1, 80).to_wav_bytes())",
        "204",
        "364",
        "the file holds the frame, not what lies behind it in the buffer",
    ),
    Case(
        "AudioFrame.create(48000, 1, 480)",
        "AudioFrame(sample_rate=48000, num_channels=1, samples_per_channel=480, duration=0.010)",
        "rtc.AudioFrame(sample_rate=48000, num_channels=1, samples_per_channel=480, duration=0.010)",
        "it is apmpi's",
    ),
    Case(
        "AudioFrame(b'')",
        "TypeError: AudioFrame.__init__() missing 3 required positional arguments: "
        "'sample_rate', 'num_channels', and 'samples_per_channel'",
    ),
    Case(
        "AudioFrame(b'', 8000, 1, 0, {})",
        "TypeError: AudioFrame.__init__() takes 5 positional arguments but 6 were given",
    ),
    Case(
        "setattr(AudioFrame.create(8000, 1, 80), 'sample_rate', 16000)",
        "AttributeError: property 'sample_rate' of 'AudioFrame' object has no setter",
    ),
    # ---- AudioProcessingModule: making one
    Case("type(AudioProcessingModule()).__name__", "'AudioProcessingModule'"),
    Case("type(AudioProcessingModule(**ALL)).__name__", "'AudioProcessingModule'"),
    Case("type(AudioProcessingModule(echo_cancellation=1)).__name__", "'AudioProcessingModule'"),
    Case(
        "AudioProcessingModule(True)",
        "TypeError: AudioProcessingModule.__init__() takes 1 positional argument but 2 were given",
    ),
    Case(
        "AudioProcessingModule(colour=True)",
        "TypeError: AudioProcessingModule.__init__() got an unexpected keyword argument 'colour'",
    ),
    Case(
        "AudioProcessingModule(echo_cancellation='yes')",
        "TypeError: 'str' object cannot be interpreted as an integer",
    ),
    # ---- processing; apm is AudioProcessingModule(**ALL), frame is AudioFrame.create
    *(
        Case(f"apm.{method}(frame({rate_hz}, {channels}, {rate_hz // 100}))", "None")
        for method in METHODS
        for rate_hz, channels in ((8000, 1), (16000, 1), (32000, 1), (48000, 1), (48000, 2), (16000, 8))
    ),
    *(
        Case(f"apm.{method}(frame(48000, 1, {count}))", "RuntimeError", livekit, STRICT)
        for method in METHODS
        for count, livekit in ((479, ABORTS), (481, ABORTS), (960, "None"), (0, NO_BUFFER))
    ),
    Case("apm.process_stream(AudioFrame(bytearray(960), 48000, 1, 470))", "RuntimeError", "None", STRICT),
    Case(
        "apm.process_stream(AudioFrame(bytearray(962), 48000, 1, 480))",
        "None",
        ABORTS,
        "a buffer may be longer than its frame, as the constructor says",
    ),
    Case("apm.process_stream(frame(7000, 1, 70))", "RuntimeError"),
    Case("apm.process_stream(frame(44100, 1, 441))", "RuntimeError", "None", "the four documented rates"),
    Case("apm.process_stream(frame(48000, 9, 480))", "RuntimeError", "None", "1 to 8 channels"),
    Case(
        "apm.process_stream(frame(48000, 0, 480))",
        "ValueError: num_channels: got 0, expected 1 to 65535",
        NO_BUFFER,
        NO_SOUND,
    ),
    Case("apm.process_stream(AudioFrame(bytes(960), 48000, 1, 480))", "None"),
    Case("apm.process_stream(None)", "AttributeError"),
    Case("in_place(apm)", "True"),
    Case("reverse_unchanged(apm)", "True"),
    Case("silent_after_silence(apm)", "True"),
    Case("goes_on_after_an_error(apm)", "True"),
    Case("another_shape(apm)", "None"),
    Case(
        "other_rate_in_reverse(apm)",
        "RuntimeError",
        "None",
        "one rate for both streams, as documented",
    ),
    # ---- the delay
    Case("apm.set_stream_delay_ms(0)", "None"),
    Case("apm.set_stream_delay_ms(500)", "None"),
    Case("AudioProcessingModule().set_stream_delay_ms(50)", "None"),
    Case("apm.set_stream_delay_ms(-1)", "RuntimeError"),
    Case("apm.set_stream_delay_ms(501)", "RuntimeError"),
    *(
        Case(
            f"apm.set_stream_delay_ms({delay})",
            "RuntimeError",
            "TypeError",
            "a delay that can't be set is a RuntimeError, as documented",
        )
        for delay in ("1.5", "'50'", "True")
    ),
    # ---- public names that have another counterpart here
    *(
        Case(f"has('{name}')", "False", "True", reason)
        for name, reason in (
            ("PlatformAudio", "MediaDevices opens the devices, and gives the program their frames"),
            ("PlatformAudioSource", "InputCapture.source is the source for a LocalAudioTrack"),
            ("PlatformAudioOptions", "keywords of MediaDevices.open_input, with the high-pass filter, too"),
            ("PlatformAudioError", "RuntimeError, as everywhere else here"),
            (
                "AudioFilter",
                "it loads a compiled plugin by its path; for a stream's frames there is "
                "apmpi.agents.livekit.MicrophoneProcessor, a FrameProcessor",
            ),
        )
    ),
]


class Calls:
    """Objects for the calls beside AudioFrame and AudioProcessingModule."""

    NUMBERS = ("sample_rate", "num_channels", "samples_per_channel")
    ALL = dict.fromkeys(
        ("echo_cancellation", "noise_suppression", "high_pass_filter", "auto_gain_control"), True
    )

    def __init__(self, library: str) -> None:
        module = importlib.import_module(library)
        self.AudioFrame: Any = module.AudioFrame
        self.AudioProcessingModule: Any = module.AudioProcessingModule
        self.has = module.__all__.__contains__

    @property
    def apm(self) -> Any:
        return self.AudioProcessingModule(**self.ALL)

    @property
    def frame(self) -> Any:
        return self.AudioFrame.create

    def outcome(self, case: Case) -> str:
        names = {name: getattr(self, name) for name in dir(self) if not name.startswith("__")}
        try:
            return repr(eval(case.call, {"numpy": np, **names}))
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    def digest(self, data: bytes) -> str:
        return f"{zlib.crc32(data):08x}"

    def writes_through(self, buffer: Any) -> bool:
        self.AudioFrame(buffer, 16000, 1, 2).data[1] = 257
        return bytes(buffer) == b"\0\0\1\1"

    def copied(self, how: str) -> tuple[bool, bool]:
        """Return whether a frame's copy shares its samples and userdata."""
        frame = self.AudioFrame(bytearray(8), 16000, 2, 2, userdata={"a": 1})
        again = pickle.loads(pickle.dumps(frame)) if how == "pickle" else getattr(copy, how)(frame)
        assert type(again) is type(frame) and again.data.tolist() == [0] * 4 and again.userdata == {"a": 1}
        frame.data[0] = 7
        return again.data[0] == 7, again.userdata is frame.userdata

    def noise(self) -> Any:
        samples = np.random.default_rng(1).integers(-9000, 9000, 480).astype(np.int16)
        return self.AudioFrame(bytearray(samples.tobytes()), 48000, 1, 480)

    def in_place(self, apm: Any) -> bool:
        frame = self.noise()
        view, before = frame.data, frame.data.tolist()
        apm.process_stream(frame)
        return view.tolist() == frame.data.tolist() != before

    def reverse_unchanged(self, apm: Any) -> bool:
        frame = self.noise()
        before = frame.data.tolist()
        apm.process_reverse_stream(frame)
        return bool(frame.data.tolist() == before)

    def silent_after_silence(self, apm: Any) -> bool:
        for _ in range(50):
            frame = self.AudioFrame.create(48000, 1, 480)
            apm.process_stream(frame)
        return not any(frame.data)

    def goes_on_after_an_error(self, apm: Any) -> bool:
        try:
            apm.process_stream(self.AudioFrame.create(7000, 1, 70))
        except RuntimeError:
            apm.process_stream(self.AudioFrame.create(48000, 1, 480))
            return True
        return False

    def other_rate_in_reverse(self, apm: Any) -> None:
        apm.process_stream(self.AudioFrame.create(48000, 1, 480))
        apm.process_reverse_stream(self.AudioFrame.create(16000, 1, 160))

    def another_shape(self, apm: Any) -> None:
        apm.process_stream(self.AudioFrame.create(48000, 1, 480))
        apm.process_stream(self.AudioFrame.create(16000, 2, 160))


def agrees(outcome: str, expected: str) -> bool:
    return outcome == expected or outcome.startswith(f"{expected}: ")


def of_apmpi() -> list[str]:
    calls = Calls("apmpi")
    return [calls.outcome(case) for case in CASES]


def of_livekit() -> list[str]:
    outcomes: list[str] = []
    while len(outcomes) < len(CASES):
        command = [sys.executable, __file__, "livekit", str(len(outcomes))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        outcomes += done.stdout.splitlines()
        if len(outcomes) < len(CASES):
            if done.returncode >= 0:
                raise RuntimeError(done.stderr)
            outcomes.append(ABORTS)
    return outcomes


def table() -> str:
    lines = ["| call | apmpi | livekit.rtc | why not the same |", "|---|---|---|---|"]
    for case, ours, theirs in zip(CASES, of_apmpi(), of_livekit(), strict=True):
        same = not case.livekit
        columns = (f"`{case.call}`", ours, "the same" if same else theirs, case.reason)
        lines.append("| " + " | ".join(text.replace("|", "\\|") for text in columns) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["livekit"]:
        livekit = Calls("livekit.rtc")
        for one in CASES[int(sys.argv[2]) :]:
            print(livekit.outcome(one).replace("\n", " "), flush=True)
    elif list(importlib.metadata.distributions(name="livekit")):
        print(table())
    else:
        sys.exit("conformance: livekit is not installed, expected it to compare with: pip install livekit")
