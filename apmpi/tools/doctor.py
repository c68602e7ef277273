"""`apmpi doctor`: looks at the machine, opens the devices, plays a sweep and listens, and says what is fine
and what is not, with the one thing to do about it.

What it plays goes through the loop that serves a call, so its delay is the delay that the canceller meets:

    quiet (noise floor) ─► noise with syllables (does it cancel?) ─► sweep (acoustics.py) ─► quiet (decay)
"""

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import alsaaudio
import numpy as np
import soundfile
from numpy.typing import NDArray

from apmpi import settings as config
from apmpi.api.apm import KERNELS
from apmpi.cards import pcm, realtime
from apmpi.cards.clock import Timebase
from apmpi.cards.latency import FrameTimes, LatencySummary
from apmpi.cards.text_file import one_line
from apmpi.errors import EndpointError
from apmpi.service.loop import Loop
from apmpi.service.report import CoreStats
from apmpi.settings import Endpoint, Settings
from apmpi.tools import acoustics
from apmpi.tools.endpoint_check import endpoint_states
from apmpi.units import FRAME_MS, FRAMES_PER_S

Samples = NDArray[np.float64]

# Loud enough for a room, below what makes small loudspeakers rattle: peaks of speech.
PEAK_DBFS = -12.0
QUIET_S, TALK_S, AFTER_TALK_S, AFTER_SWEEP_S = 1.5, 4.0, 1.0, 1.5
SWEEP_AT_S = QUIET_S + TALK_S + AFTER_TALK_S
# The card's first moments are not the microphone's: some start with a click.
SETTLE_S = 0.5
# How much later than it should the loop is stopped if a device has gone meanwhile.
PATIENCE_S = 5.0

# Where fine ends. Speech at the microphone is about 25 dB below full scale: 25 dB above its noise it is
# clear.
NOISE_MAX_DBFS = -50.0
# Clipped samples in a second that nobody hears.
CLIPPED_MAX = 2
# An echo louder than this over what is played leaves no room for the talker in the same 16 bits.
ECHO_MAX_DB = 6.0
# Weaker, and it is below the noise of most rooms.
ECHO_MIN_DB = -60.0
# The search looks so far back (DELAY_LAGS in native/apm/apm.c). A wire and a room never take so much as the
# second one: that is Bluetooth, or a network.
DELAY_MAX_MS, DELAY_LONG_MS = 1000.0, 300.0
# The canceller models the decay's beginning and estimates the rest; living rooms have 0.3 to 0.6 s.
DECAY_MAX_S = 0.8
# What a loudspeaker adds is not in the reference: only the rest of the echo can be cancelled as such.
DISTORTION_MAX = 0.1
# "converged" of the canceller's own figures.
ERLE_MIN_DB = 10.0
# Half a frame for the processing leaves the other half for everything else.
PROCESSING_MAX_MS = FRAME_MS / 2

FINE, NOTE, WRONG = "fine", "note", "WRONG"
NAME_WIDTH = 20
POWER_FLAGS = ((0, "too little voltage"), (2, "throttled"), (3, "too hot"))
SLOW_CLOCKS = ("acpi_pm", "hpet", "jiffies", "pit", "refined-jiffies")


@dataclass(frozen=True)
class Finding:
    """One check: FINE, NOTE (good to know) or WRONG, what was found, and the one thing to do."""

    name: str
    verdict: str
    text: str
    todo: str = ""


def main(path: Path | None, device: str | None, with_sound: bool) -> int:
    """Prints what it finds. Returns the exit status: 0, or 1 if something is wrong. Raises ConfigError."""
    settings = _settings(path, device)
    findings = []
    for finding in _all(settings, with_sound):
        findings.append(finding)
        print(f"{finding.verdict:<6} {finding.name:<{NAME_WIDTH}} {one_line(finding.text)}", flush=True)
        if finding.todo:
            print(f"{'':<6} {'':<{NAME_WIDTH}} -> {finding.todo}", flush=True)
    wrong = sum(finding.verdict == WRONG for finding in findings)
    print(f"\n{'all is fine' if not wrong else f'{wrong} to look after'}")
    return 1 if wrong else 0


def _settings(path: Path | None, device: str | None) -> Settings | None:
    """Of the configuration, or of one card for both directions; None if there is neither."""
    if path is not None:
        return config.load(path)
    if device is None:
        both = set(pcm.hardware(alsaaudio.PCM_CAPTURE)) & set(pcm.hardware(alsaaudio.PCM_PLAYBACK))
        if not both:
            return None
        device = f"plug{min(both)}"
    able = pcm.abilities(device, alsaaudio.PCM_CAPTURE, 1)
    channels = min(max(able[0], 1), config.CARD_CHANNELS_MAX) if able else 1
    return Settings(microphone=Endpoint(device=device, channels=channels), speaker=Endpoint(device=device))


def _all(settings: Settings | None, with_sound: bool) -> Iterator[Finding]:
    yield from machine_findings(Path("/"))
    if settings is None:
        yield Finding("sound cards", WRONG, "none can record and play", "plug one in, or name one: --device")
        return
    yield _learned_gain(settings)
    usable = True
    for finding in _endpoint_findings(settings):
        usable &= finding.verdict != WRONG
        yield finding
    if not with_sound or not usable:
        return
    if settings.microphone.device is None:
        yield Finding("sound", NOTE, "the microphone is a file: nothing to listen to")
        return
    print(
        f"... plays {_seconds(settings):.0f} s at {PEAK_DBFS:.0f} dBFS: noise, then a sweep; please be quiet",
        flush=True,
    )
    try:
        hearing = listen(settings)
    except EndpointError as error:
        yield Finding("sound", WRONG, str(error), "apmpi check says more")
        return
    yield from sound_findings(settings, hearing)
    print("\nlines for apmpi.yaml:")
    for line in suggested_lines(settings, hearing):
        print(f"  {one_line(line)}")


# ---- the machine


def machine_findings(root: Path) -> Iterator[Finding]:
    """`root` is where /dev, /proc and /sys are."""
    slow = KERNELS == "scalar"
    yield Finding(
        "arithmetic", NOTE if slow else FINE, f"{KERNELS} kernels{': no vectors here' if slow else ''}"
    )
    yield from _permission(root)
    yield _real_time_rights()
    yield from _clock_source(root)
    yield from _governor(root)
    yield from _power(root)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _permission(root: Path) -> Iterator[Finding]:
    nodes = sorted((root / "dev/snd").glob("pcm*"))
    if not nodes:
        yield Finding("kernel sound", NOTE, "no card in /dev/snd: only ALSA plugins can be used")
        return
    closed = [node for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if closed:
        todo = "sudo usermod -aG audio $USER, then log in anew"
        yield Finding("permission", WRONG, f"/dev/snd/{closed[0].name} may not be opened", todo)
    else:
        yield Finding("permission", FINE, f"{len(nodes)} PCM devices in /dev/snd may be opened")


def _real_time_rights() -> Finding:
    with realtime.real_time() as refused:
        pass
    if not refused:
        return Finding("real-time rights", FINE, "priority and locked memory are granted")
    todo = "the service has them; in a terminal, see rtprio and memlock in limits.conf(5)"
    return Finding("real-time rights", NOTE, f"not granted here: {', '.join(refused)}", todo)


def _clock_source(root: Path) -> Iterator[Finding]:
    source = _read(root / "sys/devices/system/clocksource/clocksource0/current_clocksource")
    if source is None:
        return
    if source in SLOW_CLOCKS:
        todo = "take clocksource= out of the kernel's command line"
        yield Finding("clock source", WRONG, f"{source} is slow to read", todo)
    else:
        yield Finding("clock source", FINE, source)


def _governor(root: Path) -> Iterator[Finding]:
    """Absent where the processor has one speed, or where a virtual machine hides it."""
    folders = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
    governors = {text for folder in folders if (text := _read(folder / "scaling_governor"))}
    drivers = {text for folder in folders if (text := _read(folder / "scaling_driver"))}
    if not governors:
        return
    # These two drivers' powersave follows the load, as other drivers' ondemand does.
    slow = "powersave" in governors and not any(driver.endswith("_pstate") for driver in drivers)
    if slow:
        todo = "echo ondemand | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        yield Finding("governor", WRONG, "powersave keeps the processor at its lowest speed", todo)
    else:
        yield Finding("governor", FINE, ", ".join(sorted(governors)))


def _power(root: Path) -> Iterator[Finding]:
    """What a Raspberry Pi's firmware tells: its own flags (raspberrypi.com/documentation/computers/os.html,
    get_throttled), or the kernel's alarm (Documentation/hwmon/raspberrypi-hwmon)."""
    todo = "use a stronger power supply, and a shorter or thicker cable"
    flags = _read(root / "sys/devices/platform/soc/soc:firmware/get_throttled")
    if flags is not None and re.fullmatch(r"(0x)?[0-9a-fA-F]{1,8}", flags):
        value = int(flags, 16)
        now, past = ([text for bit, text in POWER_FLAGS if value >> shift + bit & 1] for shift in (0, 16))
        if now or past:
            when = "now" if now else "since the start"
            cool = "give it a heat sink" if "voltage" not in " ".join(now or past) else todo
            yield Finding("power", WRONG, f"{', '.join(now or past)} {when}", cool)
        else:
            yield Finding("power", FINE, "no undervoltage, not throttled since the start")
        return
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if _read(folder / "name") == "rpi_volt":
            if _read(folder / "in0_lcrit_alarm") == "1":
                yield Finding("power", WRONG, "too little voltage", todo)
            else:
                yield Finding("power", FINE, "no undervoltage")


def _learned_gain(settings: Settings) -> Finding:
    on = settings.features.learned_gain and settings.features.noise_suppression
    if on:
        return Finding("learned gain", FINE, "on")
    return Finding("learned gain", NOTE, "off", "features: {noise_suppression: true, learned_gain: true}")


# ---- the devices


def _endpoint_findings(settings: Settings) -> Iterator[Finding]:
    """Each opened as the service would open it, all at once."""
    for key, _, found in endpoint_states(settings):
        if isinstance(found, str):
            yield Finding(key, FINE, found)
        else:
            busy = "is busy" in str(found)
            todo = "stop what uses it (systemctl stop apmpi)" if busy else "apmpi check lists what there is"
            yield Finding(key, WRONG, str(found), todo)


# ---- the sound


@dataclass(frozen=True)
class Hearing:
    """Sound played by the loop, [samples], and heard by the microphone's card, [samples, channels]; -1 to 1.

    channels   the numbers of those channels on the card, counted from 1
    """

    rate_hz: int
    channels: tuple[int, ...]
    played: Samples
    heard: Samples
    latency: LatencySummary
    xruns: dict[str, int]
    drift_ppm: dict[str, float]
    core: CoreStats  # after the noise


def _seconds(settings: Settings) -> float:
    return SWEEP_AT_S + acoustics.SWEEP_S + AFTER_SWEEP_S


def _signal(rate_hz: int) -> Samples:
    peak = 10 ** (PEAK_DBFS / 20)
    rng = np.random.default_rng(1)
    count = round(TALK_S * rate_hz)
    # Roughly speech: 6 dB per octave less above 500 Hz, and four syllables a second.
    frequency_hz = np.fft.rfftfreq(count, 1 / rate_hz)
    shape = frequency_hz / 500 / (1 + (frequency_hz / 500) ** 2)
    talk = np.fft.irfft(np.fft.rfft(rng.standard_normal(count)) * shape, count)
    talk *= 0.55 - 0.45 * np.cos(2 * np.pi * 4 * np.arange(count) / rate_hz)
    talk *= peak / np.abs(talk).max()

    def quiet(seconds: float) -> Samples:
        return np.zeros(round(seconds * rate_hz))

    sweep = acoustics.sweep(rate_hz, peak)
    return np.concatenate([quiet(QUIET_S), talk, quiet(AFTER_TALK_S), sweep, quiet(AFTER_SWEEP_S)])


def _channels(settings: Settings) -> tuple[int, ...]:
    """Those of the microphone's card that are measured, counted from 1: all, or as many as the chain takes,
    the configured ones first."""
    configured = [number + 1 for number in settings.near_channels + settings.reference_channels]
    every = [*configured, *range(1, settings.microphone.channels + 1)]
    return tuple(sorted([*dict.fromkeys(every)][: config.CHANNELS_MAX]))


def listen(settings: Settings) -> Hearing:
    """Plays on the speaker, or where there is none on the microphone's card. Raises EndpointError."""
    rate_hz, microphone, channels = settings.sample_rate_hz, settings.microphone, _channels(settings)
    speaker = (
        settings.speaker
        if settings.speaker and settings.speaker.device
        else Endpoint(device=microphone.device)
    )
    played: list[bytes] = []
    heard: list[bytes] = []
    after_talk: list[CoreStats] = []

    def tap(far: bytes, near: bytes, _: bytes, __: FrameTimes) -> None:
        played.append(far)
        heard.append(near)
        if len(heard) == round((QUIET_S + TALK_S) * FRAMES_PER_S) and loop.board.core:
            after_talk.append(loop.board.core)

    with contextlib.ExitStack() as stack:
        file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "doctor.wav"
        soundfile.write(file, _signal(rate_hz), rate_hz, subtype="PCM_16")
        trial = replace(
            settings,
            microphone=replace(microphone, use=channels),
            far_end=Endpoint(file=file),
            speaker=speaker,
            output=None,
        )
        loop = Loop(trial, None, stack, tap, Timebase())
        stack.enter_context(realtime.real_time())
        seconds = _seconds(settings)
        stop = threading.Timer(seconds + PATIENCE_S, setattr, (loop.board, "stop", True))
        stop.daemon = True
        stop.start()
        stack.callback(stop.cancel)
        problem = loop.run(seconds) or loop.board.parked
        latency = loop.latency.summary(0)
        if problem or len(heard) < round(seconds * FRAMES_PER_S) or not after_talk or latency is None:
            raise EndpointError(problem or "the devices gave less sound than expected")
        return Hearing(
            rate_hz,
            channels,
            np.frombuffer(b"".join(played), "<i2") / 32768.0,
            np.frombuffer(b"".join(heard), "<i2").reshape(-1, len(channels)) / 32768.0,
            latency,
            loop.xruns(),
            loop.drift_ppm(),
            after_talk[0],
        )


def paths(hearing: Hearing) -> dict[int, acoustics.Path]:
    """By number of the channel of the microphone's card."""
    part = slice(
        round(SWEEP_AT_S * hearing.rate_hz),
        round((SWEEP_AT_S + acoustics.SWEEP_S + AFTER_SWEEP_S) * hearing.rate_hz),
    )
    return {
        number: acoustics.measure(hearing.played[part], channel[part], hearing.rate_hz)
        for number, channel in zip(hearing.channels, hearing.heard.T, strict=True)
    }


def sound_findings(settings: Settings, hearing: Hearing) -> Iterator[Finding]:
    found = paths(hearing)
    wires = [number for number, path in found.items() if path.wire]
    configured = settings.far_end.microphone_channels if settings.far_end else ()
    microphones = [number for number, path in found.items() if not path.wire and number not in configured]
    for number in microphones:
        name = "microphone" if len(found) == 1 else f"channel {number}"
        heard = hearing.heard[:, hearing.channels.index(number)]
        yield from _microphone_findings(name, hearing, heard)
        yield from _path_findings(name, found[number], _clipped(heard))
    yield from _polarity_findings({number: found[number] for number in microphones})
    yield from _wire_findings(wires, configured)
    yield from _loop_findings(settings, hearing)


def _microphone_findings(name: str, hearing: Hearing, heard: Samples) -> Iterator[Finding]:
    rate_hz = hearing.rate_hz
    quiet = heard[round(SETTLE_S * rate_hz) : round(QUIET_S * rate_hz)]
    if not heard.any():
        yield Finding(
            name, WRONG, "gives nothing but zeros", "unmute it (alsamixer), or take another channel"
        )
        return
    noise_dbfs = 10 * np.log10(np.mean((quiet - quiet.mean()) ** 2) + (0.3 / 32768) ** 2)  # 16 bits' own
    text = f"noise floor {noise_dbfs:.1f} dBFS"
    if noise_dbfs > NOISE_MAX_DBFS:
        yield Finding(
            f"{name} noise", WRONG, text, "lower its gain (alsamixer), or move it away from what hums"
        )
    else:
        yield Finding(f"{name} noise", FINE, text)
    if clipped := _clipped(heard):
        text = f"clips: {clipped} samples at full scale"
        yield Finding(f"{name} level", WRONG, text, "lower its gain (alsamixer), or the loudspeaker's volume")
    else:
        peak_dbfs = 20 * np.log10(max(float(np.abs(heard).max()), 0.5 / 32768))
        yield Finding(f"{name} level", FINE, f"does not clip, at most {peak_dbfs:.1f} dBFS")


def _clipped(heard: Samples) -> int:
    """Samples at full scale, if there are more than nobody hears."""
    count = int(np.sum(np.abs(heard) >= 32767 / 32768))
    return count if count > CLIPPED_MAX else 0


def _path_findings(name: str, path: acoustics.Path, clipped: int) -> Iterator[Finding]:
    if not path.heard:
        todo = "turn the loudspeaker up (alsamixer), or name the right cards: apmpi check lists them"
        yield Finding(f"{name} echo", WRONG, "what the loudspeaker plays is not heard", todo)
        return
    delay_ms = 1000 * path.delay_s
    text = f"{delay_ms:.1f} ms behind what is played"
    if delay_ms > DELAY_MAX_MS:
        todo = "use a card on a wire: no Bluetooth, no network"
        yield Finding(f"{name} delay", WRONG, f"{text}, beyond what is looked for", todo)
    elif delay_ms > DELAY_LONG_MS:
        yield Finding(
            f"{name} delay", NOTE, text, "if that is Bluetooth or a network, a wire would be better"
        )
    else:
        yield Finding(f"{name} delay", FINE, text)
    upside = ", upside down (no harm)" if path.inverted else ""
    text = f"echo return loss {-path.gain_db:.1f} dB{upside}"
    if path.gain_db > ECHO_MAX_DB:
        yield Finding(f"{name} echo", WRONG, text, "lower the loudspeaker's volume, or the microphone's gain")
    elif path.gain_db < ECHO_MIN_DB:
        yield Finding(
            f"{name} echo", NOTE, f"{text}: hardly heard", "turn the loudspeaker up, if that is a surprise"
        )
    else:
        yield Finding(f"{name} echo", FINE, text)
    if path.decay_s is None:
        yield Finding("room", NOTE, "decay lost in the noise")
    elif path.decay_s > DECAY_MAX_S:
        todo = "put the microphone nearer to who talks, or something soft into the room"
        yield Finding("room", WRONG, f"decays by 60 dB in {path.decay_s:.2f} s", todo)
    else:
        yield Finding("room", FINE, f"decays by 60 dB in {path.decay_s:.2f} s")
    if clipped:
        yield Finding("loudspeaker", NOTE, "distortion unknown while the microphone clips")
    elif path.distortion is None:
        yield Finding("loudspeaker", NOTE, "distortion lost in the noise")
    elif path.distortion > DISTORTION_MAX:
        yield Finding("loudspeaker", WRONG, f"distorts by {path.distortion:.1%}", "lower its volume")
    else:
        yield Finding("loudspeaker", FINE, f"distorts by {path.distortion:.1%}")


def _polarity_findings(microphones: dict[int, acoustics.Path]) -> Iterator[Finding]:
    """By channel number."""
    heard = [number for number, path in microphones.items() if path.heard]
    opposite = [number for number in heard if microphones[number].inverted != microphones[heard[0]].inverted]
    if opposite:
        text = f"channels {heard[0]} and {opposite[0]} are of opposite polarity"
        todo = f"take one (microphone.use: [{heard[0]}]), or turn its wires round; a mono output aligns them"
        yield Finding("polarity", NOTE, text, todo)
    elif len(heard) > 1:
        yield Finding("polarity", FINE, "the same in all channels")


def _wire_findings(wires: list[int], configured: tuple[int, ...]) -> Iterator[Finding]:
    for number in configured:
        if number in wires:
            yield Finding("wired reference", FINE, f"channel {number} carries what is played")
        else:
            todo = "far_end.microphone_channels: the right one, or none"
            yield Finding("wired reference", WRONG, f"channel {number} does not carry what is played", todo)
    if spare := [number for number in wires if number not in configured]:
        todo = f"far_end: {{microphone_channels: {spare}}}, or microphone.use without it"
        yield Finding("wired reference", NOTE, f"channel {spare[0]} carries what is played", todo)


def _loop_findings(settings: Settings, hearing: Hearing) -> Iterator[Finding]:
    lost = sum(hearing.xruns.values())
    if lost:
        todo = "periods: 8, or stop what else keeps the processor busy"
        yield Finding("xruns", WRONG, f"{lost} in {_seconds(settings):.0f} s", todo)
    else:
        yield Finding("xruns", FINE, f"none in {_seconds(settings):.0f} s")
    slow_ms = hearing.latency.processing.p99_ms
    text = f"{slow_ms:.1f} ms for each {FRAME_MS:.0f} ms, 99 % of the time"
    if slow_ms > PROCESSING_MAX_MS:
        yield Finding("processor", WRONG, text, "sample_rate_hz: 16000")
    else:
        yield Finding("processor", FINE, text)
    for key, ppm in hearing.drift_ppm.items():
        yield Finding(
            "clocks", NOTE, f"that of the {key} runs {ppm:+.0f} ppm off the microphone's; resampled"
        )
    if not settings.features.echo_cancellation:
        yield Finding("echo cancellation", NOTE, "off", "features: {echo_cancellation: true}")
        return
    core = hearing.core
    if not any(path.heard and not path.wire for path in paths(hearing).values()):
        return
    text = f"takes {core.erle_db:.0f} dB after {TALK_S:.0f} s"
    if core.erle_db < ERLE_MIN_DB:
        yield Finding("echo cancellation", WRONG, text, "look after what is wrong above; it may need longer")
    else:
        yield Finding("echo cancellation", FINE, text)


def suggested_lines(settings: Settings, hearing: Hearing) -> list[str]:
    """YAML for what was measured."""
    found = paths(hearing)
    wires = [number for number, path in found.items() if path.wire]
    heard = [number for number in found if number not in wires]
    microphone, speaker = settings.microphone, settings.speaker
    more = f", channels: {microphone.channels}" if microphone.channels > 1 else ""
    more += f", use: {heard}" if heard and len(heard) < microphone.channels else ""
    lines = [f'microphone: {{device: "{microphone.device}"{more}}}']
    if wires:
        lines.append(f"far_end: {{microphone_channels: {wires}}}")
    elif speaker and speaker.device:
        lines.append(f'speaker: {{device: "{speaker.device}"}}')
    delays_ms = [1000 * found[number].delay_s for number in heard if found[number].heard]
    if delays_ms and min(delays_ms) <= config.STREAM_DELAY_MAX_MS and not wires:
        lines.append(f"stream_delay_ms: {min(delays_ms):.0f}    # where the search begins")
    return lines
