"""A simulated day of one device: three room cards on three clocks, faults at random times, one summary.

    soak.py --hours 24 [--speed 12] [--seed N]     (make soak)

Runs the loop in a process of its own, with real-time scheduling as in the product but at `speed` times real
time, and observes it from outside: its journal entries, its resident memory, and for each second the echo
reduction between input and output. White noise plays all the time. Reports for each kind of fault the time
until it was noticed, the sound lost and the time until the echo was cancelled again; exits with 1 if a
recovery is missed, memory grows, or a figure is impossible.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import math
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from room.alsa import SharedCard

from apmpi.service import report

RATE_HZ = 16000
ENDPOINTS = {
    ("room", "capture"): "microphone", ("room", "playback"): "speaker",
    ("far", "capture"): "far_end", ("out", "playback"): "output",
}  # fmt: skip
PPM = {"room": 80, "far": -120, "out": 40}
PARKED, RESUMED = "b0a54101503d491abc65e1ded02fbc03", "c15c72f1bf6947899be577e1bfaae3a5"
FIGURES = "3296f0870c8748d2858faedcc104b2a3"
# A device counts as unplugged after 500 ms without sound, and must be in use again 2 s after its return.
STALL_LIMIT_S, BACK_S = 0.5, 2.0
# Seconds of real time that a busy machine may add; the time in which it stands still as a whole is none of
# the card's.
BUSY_S = 0.4
CANCELLED_DB = 15.0
# After the first hour. Before it, memory still grows by the stacks of threads that are kept.
MEMORY_GROWTH_MAX = 1024 * 1024
WARMING_UP_MAX = 4 * 1024 * 1024
# The room card keeps 256 faults for each direction.
FAULTS_MAX = 240


@dataclass
class Fault:
    """A fault from card time `at_s` to `end_s`, and the observations of it."""

    kind: str
    card: str
    at_s: float
    end_s: float
    schedule: str  # in the syntax of the room card
    parks: bool
    noticed_s: float = math.nan
    back_s: float = math.nan
    cancelled_s: float = math.nan
    lost_s: float = math.nan
    missed: list[str] = field(default_factory=list)


def faults(rng: random.Random, seconds: float, speed: float) -> Iterator[Fault]:
    """Schedule of faults, far enough apart that each recovery can be observed. A fault that parks a device
    lasts until the reporter, which samples at intervals of real time, has seen it.
    """
    look_s = report.TICK_S * speed
    apart_s = max(14.0, seconds / FAULTS_MAX)
    at_s = 20.0
    while at_s + 12 < seconds:
        card = rng.choice(["room", "room", "far", "out"])
        directions = [direction for name, direction in ENDPOINTS if name == card]
        direction = rng.choice([*directions, "both"]) if len(directions) > 1 else directions[0]
        kind = rng.choice(["xrun", "unplug", "short stall", "long stall"])
        match kind:
            case "xrun":
                yield Fault(kind, card, at_s, at_s, f"{direction}:xrun@{at_s:.3f}", False)
            case "unplug":
                end_s = at_s + look_s + rng.uniform(0.7, 4.0)
                schedule = f"both:unplug@{at_s:.3f} both:replug@{end_s:.3f}"
                yield Fault(kind, card, at_s, end_s, schedule, True)
            case "short stall" | "long stall":
                short = kind == "short stall"
                for_s = rng.uniform(0.02, 0.3) if short else look_s + rng.uniform(0.8, 3.0)
                schedule = f"{direction}:stall@{at_s:.3f}+{for_s:.3f}"
                yield Fault(kind, card, at_s, at_s + for_s, schedule, kind == "long stall")
        at_s += apart_s * rng.uniform(0.8, 1.2)


# ---- inside: the device


def device(folder: Path, seconds: float, speed: float) -> int:
    """Run the loop; write the starts of card time and the levels of each second to files."""
    import alsaaudio

    from apmpi.service import journal, yaml_reader
    from apmpi.service import run as service

    journal.JOURNAL_SOCKET = str(folder / "journal")
    journal.BURST_S = 0.0  # each one is examined
    began_s = {}
    for name in PPM:
        kind = alsaaudio.PCM_PLAYBACK if name == "out" else alsaaudio.PCM_CAPTURE
        began_s[name] = time.monotonic()
        alsaaudio.PCM(type=kind, device=name, rate=RATE_HZ, channels=1, periodsize=160, periods=4).close()
    (folder / "began.json").write_text(json.dumps(began_s))

    # Written at once: pages first touched during the day would look like a leak.
    levels = np.full((int(seconds) + 10, 3), 0.0)
    sums = np.zeros(3)

    def tap(far: bytes, near: bytes, out: bytes, times: object) -> None:
        for column, block in ((1, near), (2, out)):
            samples = np.frombuffer(block, dtype="<i2").astype(np.float32)
            sums[column] += float(np.dot(samples, samples))
        sums[0] += 1
        if sums[0] == 100:
            row = min(int(levels[-1, 0]), len(levels) - 2)
            levels[row] = time.monotonic(), sums[1], sums[2]
            levels[-1, 0] = row + 1
            sums[:] = 0

    # What the machine is late by does not grow with the speed: as much room for it as the default gives.
    settings = yaml_reader.load(folder / "apmpi.yaml")
    settings = dataclasses.replace(settings, periods=round(settings.periods * speed))
    status = service.run(settings, seconds=seconds, tap=tap, speed=speed)
    np.save(folder / "levels.npy", levels[: int(levels[-1, 0])])
    return status


# ---- outside: the observer


@dataclass
class Seen:
    """Journal entries with their time of arrival, resident bytes by time, levels as device() writes them, the
    start of each card's time, and the seconds by which standstills of the machine have delayed it, by time.
    """

    entries: list[tuple[float, dict[str, str]]]
    resident: list[tuple[float, int]]
    levels: np.ndarray
    began_s: dict[str, float]
    lost_s: np.ndarray

    def card_s(self, card: str, monotonic_s: Any) -> Any:
        """Return times of CLOCK_MONOTONIC as a card's, before its speed."""
        return monotonic_s - self.began_s[card] - np.interp(monotonic_s, *self.lost_s.T)


def set_up(folder: Path, planned: list[Fault], speed: float, seed: int) -> None:
    package = importlib.util.find_spec("apmpi")
    assert package is not None and package.origin is not None
    library = Path(package.origin).with_name("libasound_module_pcm_apmpi_room.so")
    rng = np.random.default_rng(seed)
    tail = rng.standard_normal(RATE_HZ // 5) * 10 ** (-3 * np.arange(RATE_HZ // 5) / (RATE_HZ // 5))
    response = 0.3 * tail / np.sqrt(np.sum(tail**2))
    response[0] = 0.6
    soundfile.write(folder / "room.wav", response, RATE_HZ, subtype="FLOAT")
    lines = [f'pcm_type.apmpi_room {{ lib "{library}" }}']
    for name, ppm in PPM.items():
        schedule = " ".join(fault.schedule for fault in planned if fault.card == name) or "both:replug@0"
        more = f'impulse_response "{folder}/room.wav" delay_ms 30 ' if name == "room" else "delay_ms 5 "
        noise_dbfs = -26 if name == "far" else -75
        lines.append(
            f'pcm.{name} {{ type apmpi_room card "{name}-{folder.name}" {more} noise_dbfs {noise_dbfs} '
            f'capture_ppm {ppm} playback_ppm {ppm} speed {speed} faults "{schedule}" }}'
        )
    (folder / "room.conf").write_text("\n".join(lines) + "\n")
    (folder / "apmpi.yaml").write_text(
        f"sample_rate_hz: {RATE_HZ}\n"
        "microphone: {device: room}\nspeaker: {device: room}\nfar_end: {device: far}\noutput: {device: out}\n"
        "features: {auto_gain_control: false}\nreport_interval_s: 1\nsocket: null\n"
    )


def watch(folder: Path, seconds: float, speed: float) -> Seen:
    """Run the device to its end."""
    entries: list[tuple[float, dict[str, str]]] = []
    resident: list[tuple[float, int]] = []
    lost_s: list[tuple[float, float]] = []
    card = SharedCard(f"room-{folder.name}")
    command = [sys.executable, __file__, "--device", str(folder)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(folder / "journal"))
        journal.settimeout(0.2)
        with (folder / "stderr").open("wb") as stderr:
            status = os.fstat(stderr.fileno())
            environment = {
                **os.environ,
                "ALSA_CONFIG_PATH": f"/usr/share/alsa/alsa.conf:{folder}/room.conf",
                "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}",
            }
            command += ["--hours", str(seconds / 3600), "--speed", str(speed)]
            process = subprocess.Popen(command, stderr=stderr, env=environment)
        try:
            while process.poll() is None:
                try:
                    datagram = journal.recv(1 << 18)
                except TimeoutError:
                    continue
                entries.append((time.monotonic(), entry_of(datagram)))
                lost_s.append((entries[-1][0], card.lost_ns / 1e9))
                if entries[-1][1]["MESSAGE_ID"] == FIGURES:
                    resident.append((entries[-1][0], resident_bytes(process.pid)))
        finally:
            process.kill()
            process.wait()
    if process.returncode != 0:
        raise SystemExit(f"the device ended with {process.returncode}: {(folder / 'stderr').read_text()}")
    began_s = json.loads((folder / "began.json").read_text())
    return Seen(entries, resident, np.load(folder / "levels.npy"), began_s, np.array(lost_s))


def resident_bytes(pid: int) -> int:
    """Resident memory without shared pages, since those of a room card come and go with its device."""
    resident, shared = map(int, Path(f"/proc/{pid}/statm").read_text().split()[1:3])
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def entry_of(datagram: bytes) -> dict[str, str]:
    """Parse an entry in the binary form of systemd.io/JOURNAL_NATIVE_PROTOCOL: NAME, line feed, 64-bit
    length, value, line feed.
    """
    fields = {}
    while datagram:
        name, _, rest = datagram.partition(b"\n")
        length = int.from_bytes(rest[:8], "little")
        fields[name.decode()] = rest[8 : 8 + length].decode(errors="surrogateescape")
        assert rest[8 + length : 9 + length] == b"\n"
        datagram = rest[9 + length :]
    return fields


def judge_fault(fault: Fault, seen: Seen, until_s: float, speed: float) -> None:
    """Fill in the observations of a fault, before the next fault at card time `until_s`."""

    def card_s(monotonic_s: Any) -> Any:
        return seen.card_s(fault.card, monotonic_s) * speed

    busy_s = BUSY_S * speed
    entries = [(card_s(at_s), entry) for at_s, entry in seen.entries]
    during = [(at_s, entry) for at_s, entry in entries if fault.at_s <= at_s < until_s]
    if fault.parks:
        noticed = [at_s for at_s, entry in during if entry["MESSAGE_ID"] == PARKED]
        back = [
            at_s for at_s, entry in during if entry["MESSAGE_ID"] == RESUMED and at_s > fault.end_s - busy_s
        ]
        if noticed:
            fault.noticed_s = noticed[0] - fault.at_s
        if back:
            fault.back_s = max(back[0] - fault.end_s, 0.0)
        if not fault.noticed_s < STALL_LIMIT_S + 0.3 + busy_s:
            fault.missed.append(f"noticed after {fault.noticed_s:.1f} s")
        if not fault.back_s < BACK_S + busy_s:
            fault.missed.append(f"back after {fault.back_s:.1f} s")
    elif fault.kind == "xrun":
        keys = [key for (card, _), key in ENDPOINTS.items() if card == fault.card]
        counts = [
            (at_s, sum(int(entry.get(f"APMPI_XRUNS_{key.upper()}", 0)) for key in keys))
            for at_s, entry in entries
            if entry["MESSAGE_ID"] == FIGURES
        ]
        before = max((count for at_s, count in counts if at_s < fault.at_s), default=0)
        rises = [at_s for at_s, count in counts if fault.at_s <= at_s < until_s and count > before]
        if rises:
            fault.noticed_s = rises[0] - fault.at_s
        else:
            fault.missed.append("not counted")

    times_s = card_s(seen.levels[:, 0])
    reduction_db = 10 * np.log10((seen.levels[:, 1] + 1) / (seen.levels[:, 2] + 1))
    plays = seen.levels[:, 1] > 1e3 * 160 * 100  # an echo is there: -60 dBFS and more
    after = (times_s > fault.end_s) & (times_s < until_s)
    again = times_s[after & plays & (reduction_db > CANCELLED_DB)]
    if len(again):
        # A row is the second before its time.
        fault.cancelled_s = max(float(again[0]) - 1.0 - fault.end_s, 0.0)
    else:
        fault.missed.append("echo not cancelled again")
    around = np.flatnonzero((times_s > fault.at_s - 2) & (times_s < until_s))
    if len(around) > 2:
        fault.lost_s = max(float(np.ptp(times_s[around])) - (len(around) - 1), 0.0)


def odd_figures(entries: list[tuple[float, dict[str, str]]], speed: float) -> list[str]:
    """Figures that are impossible."""
    odd = []
    # A median is above these. A queue is below 0 where the loop comes too late, by real time.
    least_ms = {"LATENCY": 10.0, "CAPTURE_WAIT": 10.0, "PROCESSING": 0.0, "PLAYBACK_QUEUE": -speed}
    frames = xruns = 0
    for _, entry in entries:
        if entry["MESSAGE_ID"] != FIGURES:
            continue
        values = {name: value for name, value in entry.items() if name.startswith("APMPI_")}
        number = {name: float(value) for name, value in values.items() if not name.endswith("_EACH_S")}
        if not all(map(math.isfinite, number.values())):
            odd.append(f"not a number in {values}")
        for part, least in least_ms.items():
            spread = [number.get(f"APMPI_{part}_{which}_MS", 0.0) for which in ("MEDIAN", "P99", "MAX")]
            if sorted(spread) != spread or spread[0] < least:
                odd.append(f"{part} {spread}")
        if number["APMPI_FRAMES"] < frames or number["APMPI_XRUNS"] < xruns:
            odd.append("a counter fell")
        frames, xruns = int(number["APMPI_FRAMES"]), int(number["APMPI_XRUNS"])
        if not 0 <= number["APMPI_DELAY_CONFIDENCE"] <= 1 or not -20 < number["APMPI_ERLE_DB"] < 120:
            odd.append(f"ERLE {number['APMPI_ERLE_DB']}, confidence {number['APMPI_DELAY_CONFIDENCE']}")
        for key, ppm in (("FAR_END", PPM["far"]), ("OUTPUT", PPM["out"])):
            found = number.get(f"APMPI_DRIFT_PPM_{key}", 0.0)
            if abs(found) > 1200:
                odd.append(f"{key} is {found} ppm off, expected about {ppm - PPM['room']}")
    return odd


def soak(seconds: float, speed: float, seed: int) -> tuple[str, list[str]]:
    """Return (summary, errors)."""
    planned = list(faults(random.Random(seed), seconds, speed))
    folder = Path(tempfile.mkdtemp(prefix="soak"))
    try:
        set_up(folder, planned, speed, seed)
        seen = watch(folder, seconds, speed)
    finally:
        shutil.rmtree(folder)
    ends_s = [fault.at_s for fault in planned[1:]] + [seconds]
    for fault, until_s in zip(planned, ends_s, strict=True):
        judge_fault(fault, seen, until_s, speed)
    wrong = [f"{fault.schedule} on {fault.card}: {what}" for fault in planned for what in fault.missed]
    wrong += odd_figures(seen.entries, speed)

    lines = [f"{seconds / 3600:.2f} h at {speed:g} times life, seed {seed}, {len(planned)} faults"]
    titles = ("noticed after", "back after", "sound lost", "echo gone after")
    lines.append(f"{'fault':12} count  {'  '.join(f'{title:>18}' for title in titles)}")
    for kind in sorted({fault.kind for fault in planned}):
        these = [fault for fault in planned if fault.kind == kind]
        columns = [
            spread([getattr(fault, name) for fault in these])
            for name in ("noticed_s", "back_s", "lost_s", "cancelled_s")
        ]
        lines.append(f"{kind:12} {len(these):5}  {'  '.join(f'{column:>18}' for column in columns)}")
    hour_s = min(3600.0, seconds / 4) / speed
    settled = [size for at_s, size in seen.resident if at_s > seen.resident[0][0] + hour_s]
    growth = max(settled[len(settled) // 2 :]) - max(settled[: max(len(settled) // 10, 1)])
    warm = "hour" if hour_s * speed == 3600 else "quarter"
    size = f"resident memory {settled[-1] / 2**20:.1f} MiB"
    lines.append(f"{size}, grown by {growth / 1024:.0f} KiB after the first {warm}")
    figures = [entry for _, entry in seen.entries if entry["MESSAGE_ID"] == FIGURES]
    last = figures[-1]
    drift = ", ".join(f"{key} {last.get(f'APMPI_DRIFT_PPM_{key}', '-')}" for key in ("FAR_END", "OUTPUT"))
    planned_xruns = sum(fault.kind == "xrun" for fault in planned)
    lines.append(
        f"{len(figures)} reports, {last['APMPI_FRAMES']} frames, "
        f"{last['APMPI_XRUNS']} xruns ({planned_xruns} planned), "
        f"drift {drift} ppm (expected {PPM['far'] - PPM['room']}, {PPM['out'] - PPM['room']})"
    )
    lines.append(f"the machine stood still for {seen.lost_s[-1, 1]:.1f} s of real time")
    if growth > (MEMORY_GROWTH_MAX if hour_s * speed == 3600 else WARMING_UP_MAX):
        wrong.append(f"memory grew by {growth} bytes")
    return "\n".join(lines), wrong


def spread(values: list[Any]) -> str:
    known = [value for value in values if not math.isnan(value)]
    return f"{np.median(known):.2f} (max {max(known):.2f}) s" if known else "-"


def main() -> int:
    parser = argparse.ArgumentParser(description="A simulated day with faults.")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--speed", type=float, default=12.0, help="simulated seconds in one")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--device", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    seconds = given.hours * 3600
    if given.device:
        return device(given.device, seconds, given.speed)
    print(f"seed {given.seed}, {seconds / given.speed / 60:.0f} min", flush=True)
    summary, wrong = soak(seconds, given.speed, given.seed)
    print(summary)
    for what in wrong:
        print(f"WRONG {what}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
