"""`make bench`: what a 10 ms frame costs, in tables that can be pasted. One section alone: bench.py SECTION.

Times are of this machine and vary; instructions are counted under emulation and are the same in every run.
Peers take part where they are installed: livekit from PyPI, libspeexdsp1, libfftw3-dev and libkissfft-dev,
llvm-19 from Debian. The section pipewire takes real time, and a quiet machine; wake_word takes a quarter of
an hour.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import loop_bench
import numpy as np
import soundfile
from scipy.signal import fftconvolve, resample_poly

import apmpi
from apmpi import AudioFrame, AudioProcessingModule, _native
from apmpi.tools import demo

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "bench"
QEMU = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]
CPUS = {"Pi Zero 2 W, 3": "cortex-a53", "Pi 4": "cortex-a72", "Pi 5": "cortex-a76"}
FEATURES = ("echo_cancellation", "noise_suppression", "high_pass_filter", "auto_gain_control")
FRAMES = 600  # 6 s; the path changes in the middle
SETTLED = 50  # the first half second is different: the delay is not known yet


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"bench: failed: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    lines = [[str(cell) for cell in line] for line in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    for line in lines:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")
    print()


def built(cpu: str | None) -> Path:
    """Folder with the programs of CMakeLists.txt: for the Pi's processor `cpu`, or for this machine."""
    folder = BUILD / (cpu or "here")
    options = [f"-DCMAKE_TOOLCHAIN_FILE={ROOT / 'native/aarch64-linux-gnu.cmake'}", f"-DAPMPI_CPU={cpu}"]
    run("cmake", "-S", HERE, "-B", folder, *(options if cpu else []))
    run("cmake", "--build", folder, "--parallel", "2")
    return folder


# ---- instructions, counted by a plugin of the emulator


def plugin(name: str) -> Path:
    library = BUILD / f"lib{name}.so"
    library.parent.mkdir(parents=True, exist_ok=True)
    if "-plugin" not in run(QEMU[0], "-help"):
        raise SystemExit("bench: this qemu-aarch64 takes no plugins; that of Debian 12's qemu-user does")
    version = int(re.findall(r"version (\d+)", run(QEMU[0], "--version"))[0])
    interface = 1 if version < 9 else 2
    options = ["-O2", "-shared", "-fPIC", "-D_GNU_SOURCE", f"-DPLUGIN_VERSION={interface}"]
    run("gcc", *options, HERE / f"{name}.c", "-o", library)
    return library


def counted(program: Path, *arguments: object) -> tuple[list[int], str]:
    """Return the instructions between each pair of marks, and the program's output."""
    marks = BUILD / "marks"
    options = [*QEMU, "-plugin", f"{plugin('insncount')},out={marks},functions={BUILD / 'functions'}"]
    said = run(*options, program, *map(str, arguments))
    at = [int(line.split()[1]) for line in marks.read_text().splitlines()]
    return [end - start for start, end in zip(at[::2], at[1::2], strict=True)], said


def thousands(count: float) -> str:
    return f"{count / 1000:.0f}"


def instructions() -> None:
    """Instructions of a whole 10 ms frame on aarch64, all four features (thousands)"""
    folder = built("cortex-a53")
    rows = []
    shares = {}
    for rate_hz in (8000, 16000, 32000, 48000):
        for channels in (1, 2, 4) if rate_hz in (16000, 48000) else (1,):
            frames = counted(folder / "frames", rate_hz, channels, FRAMES, "mono", "single")[0][SETTLED:]
            median, worst = statistics.median(frames), max(frames)
            limit = {16000: "250", 48000: "600"}.get(rate_hz, "") if channels == 1 else ""
            ratio = f"{worst / median:.2f}"
            rows.append((rate_hz, channels, thousands(median), limit, thousands(worst), ratio))
            if channels == 1:
                lines = (line.rsplit(" ", 1) for line in (BUILD / "functions").read_text().splitlines())
                shares[rate_hz] = {name: int(count) / FRAMES for name, count in lines}
    table(("rate Hz", "channels", "median", "at most", "worst", "worst / median"), rows)
    print("Where they go (thousands a frame; `main` makes the sound):\n")
    names = [name for name in shares[48000] if shares[48000][name] > 3000 and name != "main"]
    table(
        ("function", *map(str, shares)),
        ((f"`{name}`", *(f"{shares[rate].get(name, 0) / 1000:.1f}" for rate in shares)) for name in names),
    )


def beam() -> None:
    """Instructions of a frame with the microphones as one beam, all features (thousands)"""
    folder = built("cortex-a53")
    rows = []
    for rate_hz, channels in ((16000, 2), (16000, 4)):
        single, beam = (
            counted(folder / "frames", rate_hz, channels, FRAMES, "mono", kind)[0][SETTLED:]
            for kind in ("single", "beam")
        )
        medians = map(thousands, (statistics.median(single), statistics.median(beam), max(beam)))
        rows.append((rate_hz, channels, *medians, "1200" if (rate_hz, channels) == (16000, 4) else ""))
    table(("rate Hz", "channels", "each alone", "one beam", "worst", "at most"), rows)


def loudspeakers() -> None:
    """Instructions of a frame by what two loudspeakers play (thousands)"""
    folder = built("cortex-a53")
    rows = []
    for rate_hz in (16000, 48000):
        medians = [
            statistics.median(counted(folder / "frames", rate_hz, 1, FRAMES, play, "single")[0][SETTLED:])
            for play in ("mono", "alike", "different")
        ]
        rows.append((rate_hz, *map(thousands, medians), f"{medians[2] / medians[0]:.2f}"))
    table(("rate Hz", "one loudspeaker", "two alike", "two different", "different / one"), rows)


def kernels() -> None:
    """Instructions of each kernel, the scalar text and NEON"""
    marks, said = counted(built("cortex-a53") / "kernels")
    count: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for line, instructions in zip(said.splitlines(), marks, strict=True):
        variant, name, size = line.split()
        count[name, size][variant] = instructions
    table(
        ("kernel", "size", "scalar", "neon", "ratio"),
        (
            (name, size, of["scalar"], of["neon"], f"{of['scalar'] / of['neon']:.1f}")
            for (name, size), of in count.items()
        ),
    )


def tail() -> None:
    """Instructions of the linear canceller alone against the tail (thousands a block)"""
    folder = built("cortex-a53")
    tails_ms = (50, 100, 250, 500, 1000)
    rows = []
    for rate_hz in (16000, 48000):
        medians = [
            statistics.median(counted(folder / "canceller", rate_hz // 100, tail_ms // 10, 40)[0])
            for tail_ms in tails_ms
        ]
        slopes = np.diff(medians) / np.diff(tails_ms) * 100 / 1000
        rows.append((rate_hz, *map(thousands, medians), " ".join(f"{slope:.1f}" for slope in slopes)))
    table(("rate Hz", *(f"{tail_ms} ms" for tail_ms in tails_ms), "for each 100 ms more"), rows)


def resampling() -> None:
    """Instructions of 10 ms from one card's clock to another's on aarch64, 50 ppm apart (thousands)"""
    rows = [
        (in_hz, out_hz, channels, f"{conversion(in_hz, out_hz, channels) / 1000:.1f}")
        for in_hz, out_hz in ((16000, 16000), (48000, 48000), (16000, 48000), (48000, 16000))
        for channels in (1, 2)
    ]
    table(("from Hz", "to Hz", "channels", "instructions"), rows)


def conversion(in_hz: int, out_hz: int, channels: int = 1) -> float:
    """Return the instructions of a frame's conversion."""
    return statistics.median(counted(built("cortex-a53") / "converter", in_hz, out_hz, channels, 100)[0])


def loop() -> None:
    """Instructions of 10 ms of the whole daemon on room cards, as loop_bench.py has them (thousands)"""
    frames = built("cortex-a53") / "frames"
    rng = np.random.default_rng(1)
    rows = []
    profile = {}
    for rate_hz, beyond_max, limit in ((16000, "", 600), (48000, 250, 1000)):
        chain = statistics.median(counted(frames, rate_hz, 1, FRAMES, "mono", "single")[0][SETTLED:])
        converted = loop_bench.CONVERSIONS * conversion(rate_hz, rate_hz)
        soundfile.write(BUILD / "loop-far.wav", 0.1 * rng.standard_normal(12 * rate_hz), rate_hz, "FLOAT")
        count = loop_bench.count(rate_hz, True, plugin("threadcount"), BUILD)
        shares = (converted, *(count.parts[part] for part in ("cards", "C library", "Python")))
        whole = chain + sum(shares) + count.others
        figures = map(thousands, (chain, *shares))
        python = f"{count.parts['Python'] / whole:.0%}"
        rest = thousands(count.others), thousands(whole), limit, python, f"{count.calls:.0f}"
        all_of, beyond = [sum(frame) for frame in count.frames], [frame[1] for frame in count.frames]
        worst = [f"{max(of) / statistics.median(of):.2f}" for of in (all_of, beyond)]
        rows.append((rate_hz, *figures, thousands(sum(shares)), beyond_max, *rest, *worst))
        profile[rate_hz] = count.functions
    parts = ("chain, arm64", "conversion, arm64", "cards", "C library", "Python")
    head = ("beyond the chain", "at most", "other threads", "all", "at most", "Python's share", "calls")
    worsts = ("worst / median", "beyond the chain")
    table(("rate Hz", *parts, *head, *worsts), rows)
    print(f"Worst of {loop_bench.FRAMES} frames, all of them as x86-64 code.\n")
    print("Where the audio thread's go beside the chain (thousands):\n")
    most = [name for name, _ in profile[48000].most_common() if not name.startswith(loop_bench.CHAIN)]
    table(
        ("function", *map(str, profile)),
        ((f"`{name}`", *(f"{profile[rate][name] / 1000:.1f}" for rate in profile)) for name in most[:20]),
    )


def daemon() -> None:
    """Memory of the daemon on two room cards, and time to READY on this machine"""
    BUILD.mkdir(parents=True, exist_ok=True)
    yaml = loop_bench.write_cards(BUILD, "bench-daemon", 48000, 1, False)
    started = [loop_bench.start(BUILD, yaml) for _ in range(5)]
    medians = (
        f"{statistics.median(getattr(one, name) for one in started):.{digits}f}"
        for name, digits in (("resident_mb", 0), ("locked_mb", 0), ("ready_s", 2))
    )
    table(("resident MB", "locked MB", "READY after s"), [medians])


# ---- estimates of cycles

# function of neon.c -> amount of work in one turn of its largest loop
LOOPS = {
    "filter_kalman": "filter: 16 bins of a partition",
    "adapt_kalman": "Kalman update: 16 bins of a partition",
    "pass8": "transform: 4 butterflies of radix 8",
}


def hottest_loop(assembly: str, function: str) -> str:
    """Instructions of the largest innermost loop of a function."""
    body = re.search(rf"^{function}:\n(.*?)\.size\s+{function},", assembly, re.DOTALL | re.MULTILINE)
    assert body, function
    lines = body[1].splitlines()
    labels = {line[:-1]: at for at, line in enumerate(lines) if re.match(r"\.L\w+:$", line)}
    loops = []
    for at, line in enumerate(lines):
        jump = re.match(r"\s+(?:b\.?\w*|cbn?z\s+\w+,|tbn?z.*,)\s+(\.L\w+)$", line)
        if jump and labels.get(jump[1], at) < at:
            loop = lines[labels[jump[1]] + 1 : at + 1]
            if not any(re.match(r"\.L\w+:$", inner) for inner in loop):
                loops.append([inner for inner in loop if not re.match(r"\s+\.", inner)])
    return "\n".join(max(loops, key=len))


def cycles() -> None:
    """Estimated cycles of one turn of the hottest loops, by llvm-mca"""
    analyser = shutil.which("llvm-mca-19") or shutil.which("llvm-mca")
    if analyser is None:
        print("llvm-mca is not installed: apt-get install llvm-19\n")
        return
    rows = []
    for name, what in LOOPS.items():
        for board, cpu in CPUS.items():
            model = (
                "neoverse-n1" if cpu == "cortex-a76" else cpu
            )  # the same core; LLVM has a model of the server's
            command = ["aarch64-linux-gnu-gcc", "-S", "-O3", "-std=gnu11", f"-mcpu={cpu}", "-fno-math-errno"]
            options = [
                "-fno-trapping-math",
                f"-I{ROOT / 'native'}",
                "-fno-asynchronous-unwind-tables",
                "-o",
                "-",
            ]
            assembly = run(*command, *options, ROOT / "native/kernels/neon.c")
            loop = hottest_loop(assembly, name)
            done = subprocess.run(
                [analyser, "-mtriple=aarch64", f"-mcpu={model}", "-iterations=100"],
                input=loop,
                capture_output=True,
                text=True,
            )
            total = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
            estimate = f"{int(total[1]) / 100:.0f}" if total else "no model"
            rows.append((what, board, model, len(loop.splitlines()), estimate))
    print(f"{Path(analyser).name}, gcc -O3 -mcpu=...\n")
    table(("loop", "board", "model", "instructions", "cycles"), rows)


# ---- times on this machine

Process = Callable[[int], None]


def sound(rate_hz: int) -> tuple[np.ndarray, np.ndarray]:
    """Far end and microphone, int16 frames of 10 ms: its echo 30 ms later, and noise."""
    hop, rng = rate_hz // 100, np.random.default_rng(1)
    far = (2000 * rng.standard_normal((FRAMES, hop))).astype(np.int16)
    mic = np.concatenate([np.zeros((3, hop)), far[:-3] / 2]) + 30 * rng.standard_normal((FRAMES, hop))
    return far, np.ascontiguousarray(mic.astype(np.int16))


def api(module: object, frame: type, rate_hz: int) -> Process:
    """One 10 ms frame through the Python API that apmpi and livekit share."""
    far, mic = sound(rate_hz)
    hop = rate_hz // 100
    frames = [
        (frame(bytearray(f.tobytes()), rate_hz, 1, hop), frame(bytearray(m.tobytes()), rate_hz, 1, hop))
        for f, m in zip(far, mic, strict=True)
    ]

    def process(at: int) -> None:
        played, heard = frames[at]
        module.process_reverse_stream(played)
        module.set_stream_delay_ms(30)
        module.process_stream(heard)

    return process


def speexdsp(rate_hz: int) -> Process | None:
    """SpeexDSP's canceller (250 ms), noise suppressor and gain control, through ctypes."""
    name = ctypes.util.find_library("speexdsp")
    if name is None:
        return None
    library = ctypes.CDLL(name)
    library.speex_echo_state_init.restype = library.speex_preprocess_state_init.restype = ctypes.c_void_p
    hop = rate_hz // 100
    echo = ctypes.c_void_p(library.speex_echo_state_init(hop, rate_hz // 4))
    cleaner = ctypes.c_void_p(library.speex_preprocess_state_init(hop, rate_hz))
    rate, one = ctypes.c_int(rate_hz), ctypes.c_int(1)
    library.speex_echo_ctl(echo, 24, ctypes.byref(rate))  # SPEEX_ECHO_SET_SAMPLING_RATE
    library.speex_preprocess_ctl(cleaner, 0, ctypes.byref(one))  # ..._SET_DENOISE
    if rate_hz < 48000:
        library.speex_preprocess_ctl(cleaner, 2, ctypes.byref(one))  # ..._SET_AGC
    library.speex_preprocess_ctl(cleaner, 24, echo)  # ..._SET_ECHO_STATE
    far, mic = sound(rate_hz)
    out = np.zeros(hop, np.int16)
    address = ctypes.c_void_p
    pointers = [(address(m.ctypes.data), address(f.ctypes.data)) for f, m in zip(far, mic, strict=True)]
    out_pointer = ctypes.c_void_p(out.ctypes.data)

    def process(at: int, alive: object = (far, mic, out)) -> None:
        library.speex_echo_cancellation(echo, *pointers[at], out_pointer)
        library.speex_preprocess_run(cleaner, out_pointer)

    return process


def microseconds(processes: dict[str, Process]) -> dict[str, float]:
    """Median time of a frame of each, measured in turns of 50 frames, so that a disturbance affects all."""
    times: dict[str, list[float]] = defaultdict(list)
    for start in range(0, FRAMES, 50):
        for name, process in processes.items():
            for at in range(start, start + 50):
                before = time.perf_counter()
                process(at)
                if start:
                    times[name].append(time.perf_counter() - before)
    return {name: 1e6 * statistics.median(of) for name, of in times.items()}


def peers() -> None:
    """Time of a frame through Python on this machine, all four features, in the same run (microseconds)"""
    rows = []
    for rate_hz in (16000, 48000):
        on = dict.fromkeys(FEATURES, True)
        processes = {"apmpi": api(AudioProcessingModule(**on), AudioFrame, rate_hz)}
        try:
            from livekit import rtc

            processes["LiveKit"] = api(rtc.AudioProcessingModule(**on), rtc.AudioFrame, rate_hz)
        except ImportError:
            pass
        if speex := speexdsp(rate_hz):
            processes["SpeexDSP"] = speex
        us = microseconds(processes)
        for name, of in us.items():
            rows.append((rate_hz, name, f"{of:.0f}", f"{us['apmpi'] / of:.2f}"))
    table(("rate Hz", "module", "us", "apmpi / it"), rows)


def binding() -> None:
    """Cost that Python and Cython add to a call, buffers of 10 ms at 8 kHz (microseconds)

    Measured with the far end's call, whose own work, 80 samples to float, is negligible.
    """
    bare, module = _native.Chain(8000, 1, 1, _native.DEFAULTS), AudioProcessingModule()
    frame = AudioFrame.create(8000, 1, 80)
    data = frame.data
    calls: dict[str, Process] = {
        "Chain.render": lambda at: bare.render(data, 1),
        "AudioProcessingModule.process_reverse_stream": lambda at: module.process_reverse_stream(frame),
        "an empty Python function": lambda at: None,
    }
    table(("call", "us"), ((name, f"{of:.2f}") for name, of in microseconds(calls).items()))


def transforms() -> None:
    """The real FFT beside libraries, there and back on this machine; error of a spectrum against its RMS"""
    program = built(None) / "transforms"
    if not program.exists():
        print("rivals are not installed: apt-get install libfftw3-dev libkissfft-dev\n")
        return
    table(("library", "size", "us", "worst error"), (line.split() for line in run(program).splitlines()))


def memory() -> None:
    """Bytes of one module"""
    rows = [
        (r, *(f"{_native.memory_bytes(r, c, 1):,}" for c in (1, 2, 4, 8)))
        for r in (8000, 16000, 32000, 48000)
    ]
    table(("rate Hz", "1 channel", "2", "4", "8"), rows)


# ---- quality, so that a cheaper frame is shown to be as good


def clean_up(rate_hz: int, far: np.ndarray, mic: np.ndarray) -> np.ndarray:
    """The microphone after all features but the gain control, advanced by the delay of the chain."""
    module = AudioProcessingModule(**dict.fromkeys(FEATURES[:3], True))
    hop = rate_hz // 100
    frames = [np.clip(32768 * x, -32768, 32767).astype(np.int16) for x in (far, mic)]
    out = []
    for at in range(0, len(mic) // hop * hop, hop):
        played, heard = (AudioFrame(bytearray(x[at : at + hop].tobytes()), rate_hz, 1, hop) for x in frames)
        module.process_reverse_stream(played)
        module.process_stream(heard)
        out.append(np.frombuffer(heard.data, np.int16) / 32768)
    return np.roll(np.concatenate(out), -round(module.latency_ms * rate_hz / 1000))


def sdr_db(talker: np.ndarray, heard: np.ndarray) -> float:
    """Power of the near-end speech, at any level, over the power of everything else, dB."""
    kept = np.dot(heard, talker) / np.dot(talker, talker) * talker
    return float(10 * np.log10(np.sum(kept**2) / np.sum((heard - kept) ** 2)))


def quality() -> None:
    """The scene of `make run`, 30 s: far end alone, both, near end alone; gain control off (dB)"""
    rows = []
    for rate_hz in (16000, 48000):
        third, rng = 10 * demo.RATE_HZ, np.random.default_rng(1)
        far, near = np.zeros(3 * third), np.zeros(3 * third)
        far[: 2 * third] = demo.speech("en-us", demo.FAR_TEXT, 2 * third)
        near[third:] = demo.speech("en-gb+f3", demo.NEAR_TEXT, 2 * third)
        delay = round(demo.BULK_DELAY_MS * demo.RATE_HZ / 1000)
        echo = np.roll(fftconvolve(far, demo.room_impulse_response(rng))[: len(far)], delay)
        noise = 10 ** (demo.NOISE_DBFS / 20) * rng.standard_normal(len(far))
        far, near, mic = (resample_poly(x, rate_hz, demo.RATE_HZ) for x in (far, near, near + echo + noise))
        out = clean_up(rate_hz, far, mic)

        def reduction(start_s: float, end_s: float, mic=mic, out=out, rate_hz=rate_hz) -> str:
            part = slice(round(start_s * rate_hz), round(end_s * rate_hz))
            return f"{demo.power_db(mic[part]) - demo.power_db(out[part]):.1f}"

        def talker(x: np.ndarray, start_s: float, near=near, rate_hz=rate_hz) -> str:
            part = slice(round(start_s * rate_hz), round((start_s + 9) * rate_hz))
            return f"{sdr_db(near[part], x[part]):.1f}"

        rows.append(
            (rate_hz, reduction(0, 2), reduction(5, 10), talker(mic, 10), talker(out, 10), talker(out, 20))
        )
    parts = ("both talk: talker in the microphone", "in the output", "near end alone")
    table(("rate Hz", "echo reduction, first 2 s", "5 to 10 s", *parts), rows)


def barge_in() -> None:
    """Barge-in in ten simulated rooms, 16 kHz: 60 s of far end alone, then 10 s of both ends"""
    sys.path.insert(0, str(HERE.parent))
    from reference.signals import scene, to_int16

    from apmpi.agents.stream import Stream

    rows, rate_hz, chunk = [], 16000, 320
    for seed in range(10):
        heard = scene(np.random.default_rng(seed), rate_hz, 70.0, near_from_s=60.0, delay_ms=80.0)
        far, mic, stream, allowed = to_int16(heard.far), to_int16(heard.mic), Stream(), []
        for at in range(0, len(mic), chunk):
            stream.play(far[at : at + chunk].tobytes(), rate_hz, 1)
            stream.process(mic[at : at + chunk].tobytes(), rate_hz, 1)
            allowed.append(stream.barge_in.allowed)
        begins_s = (1 + np.flatnonzero(np.diff(np.array(allowed, int)) == 1)) * chunk / rate_hz
        found_s = next((f"{begin - 60:.2f}" for begin in begins_s if begin >= 60), "missed")
        during = np.mean(allowed[61 * rate_hz // chunk :])
        rows.append((seed, int(np.sum(begins_s < 60)), found_s, f"{100 * during:.0f}"))
    table(("room", "false", "found after s", "allowed in the rest of double talk, %"), rows)


def pipewire() -> None:
    """Cancellers of PipeWire's module in the same scene, 24 s in real time; gain control off

    Processor time is the daemon's, less that of a canceller that only copies.
    """
    sys.path.insert(0, str(HERE.parent))
    from pipewire_rig import DROP_IN, RATE_HZ, Desktop, Scene, intelligibility

    scene = Scene(np.random.default_rng(1), far_s=10, both_s=7, near_s=6)
    settled = slice(scene.far_alone.start + 4 * RATE_HZ, scene.far_alone.stop)
    begin = slice(scene.far_alone.start, scene.far_alone.start + 2 * RATE_HZ)
    rows, copying_s = [], 0.0
    for name in ("null", "apmpi", "webrtc"):
        configured = DROP_IN.read_text().replace("libspa-aec-apmpi", f"libspa-aec-{name}")
        if name == "apmpi":
            configured = configured.replace("# auto_gain_control = true", "auto_gain_control = false")
        with (
            tempfile.TemporaryDirectory() as folder,
            Desktop(Path(folder)).running(configured, scene.room) as desktop,
        ):
            heard = desktop.hear(scene)
        if name == "null":
            copying_s = heard.cpu_s
            continue

        def change_db(part: slice, heard=heard) -> str:
            return f"{demo.power_db(heard.out[part]) - demo.power_db(heard.mic[part]):.1f}"

        clear = (
            intelligibility(heard.out[part], heard.near[part]) for part in (scene.both, scene.near_alone)
        )
        share = 100 * (heard.cpu_s - copying_s) / (len(scene.far) / RATE_HZ)
        changes = (change_db(part) for part in (begin, settled, scene.near_alone))
        rows.append((name, *changes, *(f"{value:.2f}" for value in clear), f"{share:.1f}"))
    header = (
        "echo, first 2 s (dB)",
        "after 4 s",
        "near end alone (dB)",
        "STOI of both",
        "alone",
        "% of a core",
    )
    table(("canceller", *header), rows)


def wake_word() -> None:
    """Wake words found in four simulated rooms by the detectors of Home Assistant's satellites, 16 kHz

    Eight synthetic voices say the word in each room while music or an answer plays; gain control off.
    """
    sys.path.insert(0, str(HERE.parent))
    try:
        import wake_word as bench
    except ImportError as missing:
        print(f"{missing.name} is not installed: make bench-wake-word\n")
        return
    if not bench.MUSIC.exists():
        print("the music is not installed: apt-get install asc-music\n")
        return
    music_min = bench.ROOMS_OF_MUSIC * len(bench.music()) / bench.RATE_HZ / 60
    with ProcessPoolExecutor() as pool:
        print(f"Found of {bench.WORDS}:\n")
        table(("detector", "far end", "voice to echo (dB)", *bench.SOURCES), bench.found(pool))
        print(f"Detected in {music_min:.0f} minutes of music without a word:\n")
        table(("detector", *bench.SOURCES_OF_ECHO), bench.false_alarms(pool))


SECTIONS = (
    instructions,
    beam,
    loudspeakers,
    loop,
    resampling,
    daemon,
    kernels,
    tail,
    cycles,
    peers,
    binding,
    transforms,
    memory,
    quality,
    barge_in,
    pipewire,
    wake_word,
)


def main(names: list[str]) -> None:
    sections = {section.__name__: section for section in SECTIONS}
    for name in names or sections:
        if name not in sections:
            raise SystemExit(f"bench: no section {name!r}, there are {', '.join(sections)}")
        title = (sections[name].__doc__ or "").splitlines()[0]
        print(f"## {title}\n\n$ .venv/bin/python tests/bench/bench.py {name}\n", flush=True)
        sections[name]()
    print(f"apmpi {apmpi.__file__}, kernels for this machine: {_native.KERNELS}")


if __name__ == "__main__":
    main(sys.argv[1:])
