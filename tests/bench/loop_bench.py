"""The whole daemon, for bench.py: instructions of a 10 ms frame by thread and part, memory, time to READY.

Two cards, as in the image: a speakerphone that is microphone and speaker, and one for the far end and the
output, on a clock of its own. Both are room cards; their own work, which a kernel does for a real one, is
left out, and so is what the C library does for them. Instructions are those of x86-64 code without AVX,
counted in an emulator in which a second lasts ten; those of the kernel are not counted, but its calls are.
For the chain and for the conversion between two clocks there are counts of their arm64 code.
"""

from __future__ import annotations

import bisect
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import apmpi

HERE = Path(__file__).parent
QEMU = ["qemu-x86_64", "-cpu", "Nehalem"]
SPEED = 0.1  # of the cards in the emulator: at 0.2 it is too slow for them
FRAMES = 400  # 40 s in the emulator; 4 s of sound, in which the loop reports twice
REPORT_INTERVAL_S = 2
AUDIO = "MainThread"
CHAIN, ROOM_CARD = "_native", "libasound_module_pcm_apmpi_room"
# Part -> the objects that it is made of; all others are Python's: its interpreter and its modules.
PARTS = {
    "chain": (CHAIN,),
    "cards": ("_cards", "libasound", "libsamplerate"),
    "C library": ("libc", "libm", "ld-linux-x86-64", "[vdso]"),
    "simulated card": (ROOM_CARD,),
}
CONVERSIONS = 2  # of each frame between the two clocks: far end and output
# The functions of native/cards and native/kernels that convert; parts["conversion"]
CONVERSION = ("converter_process", "resample", "resample_fours", "interpolate", "interpolate_four")


@dataclass(frozen=True)
class Count:
    """Instructions of 10 ms.

    parts       of the audio thread
    functions   of the audio thread, by object and function, as far as the object has symbols
    others      of all other threads together
    calls       system calls of the audio thread
    frames      of each frame in turn: those of the chain, and all others, of all wake-ups since the frame
                before
    """

    parts: Counter[str]
    functions: Counter[str]
    others: float
    calls: float
    frames: list[tuple[int, int]]


def write_cards(folder: Path, name: str, rate_hz: int, speed: float, played: bool) -> Path:
    """Write the cards' definitions and return the daemon's configuration."""
    library = Path(apmpi.__file__).with_name("libasound_module_pcm_apmpi_room.so")
    common = f"type apmpi_room speed {speed:g}"
    near = f'near "{HERE.parents[1] / "build/bench/loop-far.wav"}"' if played else ""
    (folder / "room.conf").write_text(
        f'pcm_type.apmpi_room {{ lib "{library}" }}\n'
        f'pcm.phone {{ {common} card "{name}-phone" delay_ms 30 noise_dbfs -70 }}\n'
        f'pcm.host {{ {common} card "{name}-host" capture_ppm 50 playback_ppm 50 delay_ms 30 {near} }}\n'
    )
    yaml = folder / "apmpi.yaml"
    yaml.write_text(
        f"sample_rate_hz: {rate_hz}\nsocket: null\nreport_interval_s: {REPORT_INTERVAL_S}\n"
        "microphone: {device: phone}\nspeaker: {device: phone}\n"
        "far_end: {device: host}\noutput: {device: host}\n"
    )
    return yaml


def run_daemon(folder: Path, yaml: Path, speed: float, command: list[str]) -> dict[str, object]:
    """Run loop_program.py by `command` and return its notes."""
    environment = {**os.environ, "ALSA_CONFIG_PATH": f"/usr/share/alsa/alsa.conf:{folder / 'room.conf'}"}
    program = [
        sys.executable,
        "-P",
        HERE / "loop_program.py",
        yaml,
        str(speed),
        str(FRAMES),
        folder / "notes",
    ]
    done = subprocess.run([*command, *program], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"bench: the daemon has failed:\n{done.stdout}{done.stderr}")
    notes: dict[str, object] = json.loads((folder / "notes").read_text())
    return notes


class Symbols:
    """Names of addresses in a process."""

    def __init__(self, maps: list[str]) -> None:
        """maps: lines of /proc/PID/maps"""
        rows = [line.split() for line in maps]
        spans = ((*(int(end, 16) for end in row[0].split("-")), row[5]) for row in rows if len(row) > 5)
        self._spans = sorted(spans)
        self._loaded_at: dict[str, int] = {}
        for begin, _, path in self._spans:
            self._loaded_at.setdefault(path, begin)
        self._tables: dict[str, list[tuple[int, str]]] = {}

    def name(self, address: int) -> tuple[str, str]:
        """Return the object and the function, "?" where unknown."""
        at = bisect.bisect(self._spans, (address, sys.maxsize, "")) - 1
        if at < 0 or address >= self._spans[at][1]:
            return "?", "?"
        path = self._spans[at][2]
        found = re.sub(r"(\.cpython.*|\.so.*|-[0-9a-f]{8}.*)", "", Path(path).name)
        table = self._table(path)
        row = bisect.bisect(table, (address - self._loaded_at[path], "\x7f")) - 1
        return found, table[row][1].partition("@")[0] if row >= 0 else "?"

    def _table(self, path: str) -> list[tuple[int, str]]:
        if path not in self._tables:
            # An installed module is stripped; that of the build folder has its code at the same addresses.
            built = next((HERE.parents[1] / "build").glob(f"cp*/**/{Path(path).name}"), Path(path))
            listed = subprocess.run(["nm", "--defined-only", built], capture_output=True, text=True).stdout
            rows = [line.split() for line in listed.splitlines()]
            self._tables[path] = sorted((int(row[0], 16), row[2]) for row in rows if row[1] in "tTiW")
        return self._tables[path]


def count(rate_hz: int, played: bool, plugin: Path, folder: Path) -> Count:
    """Count the daemon's instructions."""
    counts = folder / "counts"
    yaml = write_cards(folder, f"bench{os.getpid()}-{rate_hz}-{played:d}", rate_hz, SPEED, played)
    options = f"out={counts},chain=/{CHAIN}.,card=/{ROOM_CARD}."
    notes = run_daemon(folder, yaml, SPEED, [*QEMU, "-plugin", f"{plugin},{options}"])
    if notes["xruns"]:
        print(f"{notes['xruns']} xruns: the machine is busy, and the figures are too high")
    threads: dict[str, str] = notes["threads"]  # type: ignore[assignment]
    symbols, counted = Symbols(notes["maps"]), float(notes["frames"])  # type: ignore[arg-type]
    parts: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    frames = []
    others = calls = 0.0
    rest = 0
    for line in counts.read_text().splitlines():
        tid, kind, *values = line.split()
        thread = threads.get(tid, "simulated card")
        if thread != AUDIO:
            if kind == "block" and thread not in ("watch", "simulated card"):
                others += int(values[1]) / float(notes["seconds"]) / 100  # type: ignore[arg-type]
        elif kind == "calls":
            calls += int(values[0]) / counted
        elif kind == "frame":
            rest += int(values[1])
            if values[0] != "0":
                frames.append((int(values[0]), rest))
                rest = 0
        else:
            part, function = part_of(*symbols.name(int(values[0], 16)))
            parts[part] += int(values[1]) / counted  # type: ignore[assignment]
            functions[function] += int(values[1]) / counted  # type: ignore[assignment]
    if len(frames) < counted - 1:
        print(f"{counted - len(frames):.0f} frames late: the machine is busy, and the worst frame is none")
    return Count(parts, functions, others, calls, frames)


def part_of(found: str, function: str) -> tuple[str, str]:
    """Return the part, and the function with its object's name, of a function in an object."""
    part = next((part for part, names in PARTS.items() if found in names), "Python")
    if part == "cards" and function in CONVERSION:
        part = "conversion"
    if part == "chain" and function.lower().startswith("__pyx"):
        part = "Python"
    return part, f"{found}: {function}"


@dataclass(frozen=True)
class Started:
    """A daemon `settled_s` after READY: time to READY, and its memory without the simulated cards'."""

    ready_s: float
    resident_mb: float
    locked_mb: float


def start(folder: Path, yaml: Path, settled_s: float = 2.0) -> Started:
    """Start `apmpi run`, measure it, and end it."""
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path = folder / "notify"
    path.unlink(missing_ok=True)
    heard.bind(os.fspath(path))
    alsa = f"/usr/share/alsa/alsa.conf:{folder / 'room.conf'}"
    began_s = time.monotonic()
    command = [Path(sys.executable).with_name("apmpi"), "run", "--config", yaml]
    environment = {**os.environ, "NOTIFY_SOCKET": os.fspath(path), "ALSA_CONFIG_PATH": alsa}
    daemon = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while b"READY=1" not in heard.recv(4096):
        pass
    ready_s = time.monotonic() - began_s
    time.sleep(settled_s)
    lines = Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    simulated_kb = cards_kb(Path(f"/proc/{daemon.pid}/smaps").read_text())
    daemon.kill()
    daemon.wait()
    heard.close()
    resident_mb, locked_mb = (
        (int(status[name].split()[0]) - simulated_kb) / 1024 for name in ("VmRSS", "VmLck")
    )
    return Started(ready_s, resident_mb, locked_mb)


def cards_kb(smaps: str) -> int:
    """Return the memory, resident and locked, that a process shares with simulated cards, by its smaps.
    No real card has it.
    """
    total_kb, of_a_card = 0, False
    for line in smaps.splitlines():
        name, *values = line.split()
        if not name.endswith(":"):  # the head of a mapping
            of_a_card = "/dev/shm/apmpi-room-" in line
        elif of_a_card and name == "Rss:":
            total_kb += int(values[0])
    return total_kb
