"""A PipeWire of the tests' own: daemon, session manager, and a sound card and a room made of its nodes.

    player, far end ─► apmpi_speaker ─► echo-cancel module ─► card.speaker ─► room (convolver) ─┐
    player, near end ───────────────────────────────────────────────────────────────────────────┤
    recorder ◄─────── apmpi_microphone ◄─ echo-cancel module ◄───────────── card.microphone ◄───┘

All runs in real time, without hardware, on a session bus of its own.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from pystoi import stoi
from reference.signals import Signal, lag_samples, room, voice

ROOT = Path(__file__).parents[1]
DROP_IN = ROOT / "config" / "pipewire-apmpi.conf"
RATE_HZ = 48000
# PipeWire's own plugins, and this project's.
PLUGIN_FOLDERS = (*Path("/usr/lib").glob("*/spa-0.2"), ROOT / "build" / "pipewire" / "spa-0.2")
ROOM_DELAY_S = 0.02
ECHO_GAIN = 0.7  # -3 dB: the echo is about as loud as the near end
CARD = """
context.modules = [
    {{ name = libpipewire-module-filter-chain args = {{
        filter.graph = {{ nodes = [
            {{ type = builtin name = room label = convolver config = {{ filename = "{room}" }} }}
        ] }}
        audio.channels = 1 audio.position = [ MONO ]
        capture.props = {{ node.name = room.in node.autoconnect = false }}
        playback.props = {{ node.name = room.out node.autoconnect = false }}
    }} }}
]
context.objects = [
    {{ factory = adapter args = {{
        factory.name = support.null-audio-sink node.name = card.speaker
        media.class = Audio/Sink audio.position = [ MONO ] object.linger = true
    }} }}
    {{ factory = adapter args = {{
        factory.name = support.null-audio-sink node.name = card.microphone
        media.class = Audio/Source/Virtual audio.position = [ MONO ] object.linger = true
    }} }}
]
"""


class Scene:
    """A far end, then both ends, then the near end alone; a second of silence before them."""

    LEAD_IN_S = 1.0

    def __init__(self, rng: np.random.Generator, far_s: float, both_s: float, near_s: float) -> None:
        ends_s = np.cumsum([self.LEAD_IN_S, far_s, both_s, near_s])
        self.far_alone, self.both, self.near_alone = (
            slice(round(start * RATE_HZ), round(end * RATE_HZ)) for start, end in itertools.pairwise(ends_s)
        )
        samples = round(ends_s[-1] * RATE_HZ)
        self.far, self.near = np.zeros(samples), np.zeros(samples)
        far = slice(self.far_alone.start, self.both.stop)
        near = slice(self.both.start, samples)
        self.far[far] = voice(rng, RATE_HZ, far_s + both_s, pitch_hz=120.0)
        self.near[near] = voice(rng, RATE_HZ, both_s + near_s, pitch_hz=190.0)
        self.room = ECHO_GAIN * np.concatenate([np.zeros(round(ROOM_DELAY_S * RATE_HZ)), room(rng, RATE_HZ)])


@dataclass(frozen=True)
class Heard:
    """Signals of a scene, which begin with it, and the processor time of the daemon in seconds.

    `near` is the near end as it is played into the room, without echo.
    """

    mic: Signal
    out: Signal
    near: Signal
    cpu_s: float


class Desktop:
    """A running PipeWire with its session manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "pipewire.log"
        self._environment = {
            **os.environ,
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_STATE_HOME": str(folder / "state"),
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={folder / 'bus'}",
            "SPA_PLUGIN_DIR": ":".join(map(str, PLUGIN_FOLDERS)),
            "PIPEWIRE_DEBUG": "2,spa.aec.apmpi:3",
        }
        self.daemon: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def running(self, drop_in: str, room: Signal) -> Iterator[Desktop]:
        """Run both with a drop-in of PipeWire's configuration until the block ends."""
        soundfile.write(self.folder / "room.wav", room, RATE_HZ, subtype="FLOAT")
        drop_ins = self.folder / "config" / "pipewire" / "pipewire.conf.d"
        drop_ins.mkdir(parents=True)
        (drop_ins / "10-card.conf").write_text(CARD.format(room=self.folder / "room.wav"))
        (drop_ins / "20-echo-cancel.conf").write_text(drop_in)
        with contextlib.ExitStack() as stack:
            bus = self._environment["DBUS_SESSION_BUS_ADDRESS"]
            self.start(stack, "dbus-daemon", "--session", "--nofork", f"--address={bus}")
            self.daemon = self.start(stack, "pipewire")
            wait_until((self.folder / "pipewire-0").exists, self.log)
            self.start(stack, "wireplumber")
            self.wait_for("card.microphone", "card.speaker")
            # In a virtual machine PipeWire's cycles have 1024 samples, more than the module takes at once.
            self.ask("pw-metadata", "-n", "settings", "0", "clock.force-quantum", "256")
            yield self

    def start(self, stack: contextlib.ExitStack, *command: str | Path) -> subprocess.Popen[bytes]:
        """Start a program that is stopped at the end of `stack`."""
        log = stack.enter_context(self.log.open("ab"))
        process = subprocess.Popen(
            command, env=self._environment, stdout=log, stderr=log, start_new_session=True
        )
        stack.callback(stop, process)
        return process

    def ask(self, *command: str | Path) -> str:
        """Return the standard output of a program that must succeed."""
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, f"{command}: {done.stderr}\n{self.log.read_text()}"
        return done.stdout

    def wait_for(self, *ports: str) -> None:
        """Wait until there are ports whose names begin so."""

        def are_there() -> bool:
            listed = self.ask("pw-link", "-io")
            return all(re.search(rf"^{re.escape(port)}", listed, re.MULTILINE) for port in ports)

        wait_until(are_there, self.log)

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Return PipeWire's nodes by name."""
        every = json.loads(self.ask("pw-dump"))
        nodes = [each for each in every if each["type"] == "PipeWire:Interface:Node"]
        return {node["info"]["props"].get("node.name", ""): node for node in nodes}

    def hear(self, scene: Scene) -> Heard:
        """Play the scene and record it."""
        assert self.daemon is not None
        recording = self.folder / "recording.wav"
        soundfile.write(
            self.folder / "scene.wav", np.stack([scene.far, scene.near], 1), RATE_HZ, subtype="FLOAT"
        )
        unlinked = ("--target", "0")
        with contextlib.ExitStack() as stack:
            shape = ("--rate", str(RATE_HZ), "--channels", "3", "--format", "f32")
            recorder = self.start(stack, "pw-record", *unlinked, *shape, recording)
            player = self.start(stack, "pw-cat", "-p", *unlinked, self.folder / "scene.wav")
            self.wait_for("pw-record:input_LFE", "pw-cat:output_FR", "apmpi_microphone:capture_")
            before_s = cpu_s(self.daemon)
            self.ask("pw-link", "card.speaker:monitor_MONO", "room.in:input_MONO")
            self.ask("pw-link", "room.out:output_MONO", "card.microphone:input_MONO")
            self.ask("pw-link", "card.microphone:capture_MONO", "pw-record:input_FL")
            self.ask("pw-link", "apmpi_microphone:capture_MONO", "pw-record:input_FR")
            self.ask("pw-link", "pw-cat:output_FR", "pw-record:input_LFE")
            self.ask("pw-link", "pw-cat:output_FL", "apmpi_speaker:playback_MONO")
            self.ask("pw-link", "pw-cat:output_FR", "card.microphone:input_MONO")
            player.wait(timeout=len(scene.far) / RATE_HZ + 20)
            used_s = cpu_s(self.daemon) - before_s
            stop(recorder, signal.SIGINT)
        heard, _ = soundfile.read(recording)
        return Heard(*aligned(scene, heard), used_s)


def aligned(scene: Scene, heard: Signal) -> tuple[Signal, Signal, Signal]:
    """Cut a recording of microphone, output and near end so that it begins with the scene."""
    near = heard[:, 2]
    begin = int(np.argmax(near != 0.0)) - int(np.argmax(scene.near != 0.0))
    samples = len(scene.near)
    assert 0 <= begin <= len(heard) - samples, f"{len(heard)} samples recorded, the scene begins at {begin}"
    mic, out, near = heard[begin : begin + samples].T
    return mic, out, near


def intelligibility(out: Signal, near: Signal) -> float:
    """Short-time objective intelligibility of the near end in the output, 0 to 1."""
    lag = lag_samples(out, near, RATE_HZ // 5)
    return float(stoi(near[: len(near) - lag], out[lag:], RATE_HZ))


def wait_until(holds: Callable[[], bool], log: Path, timeout_s: float = 20.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end_s, log.read_text()
        time.sleep(0.02)


def cpu_s(process: subprocess.Popen[bytes]) -> float:
    """Processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def stop(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> None:
    """End a process that start() has begun, with its children."""
    if process.poll() is None:
        os.killpg(process.pid, number)
    process.wait(timeout=20)
