"""Findings of `apmpi doctor` from its recording (listening.py), and lines for apmpi.yaml."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from apmpi.settings import STREAM_DELAY_MAX_MS, Settings
from apmpi.tools import acoustics
from apmpi.tools.finding import FINE, NOTE, WRONG, Finding, judged
from apmpi.tools.listening import QUIET_S, TALK_S, Hearing, Samples, duration_s, paths, paths_apart
from apmpi.units import FRAME_MS

# Start of the recording that is not measured: some cards begin with a click.
SETTLE_S = 0.5
# Speech at the microphone is about 25 dB below full scale; 25 dB above the noise it is clear.
NOISE_MAX_DBFS = -50.0
# So many clipped samples in the recording are inaudible.
CLIPPED_MAX = 2
# Power of the echo over that of the far end. Above, 16 bits leave no range for the near end.
ECHO_MAX_DB = 6.0
# Below, the echo is weaker than the noise of most rooms.
ECHO_MIN_DB = -60.0
# Range of the delay search (FAR_DELAY_LAGS in far.h). A cable and a room stay far below DELAY_LONG_MS;
# Bluetooth and networks do not.
DELAY_MAX_MS, DELAY_LONG_MS = 1000.0, 300.0
# The canceller models the beginning of the decay and estimates the rest; living rooms have 0.3 to 0.6 s.
DECAY_MAX_S = 0.8
# Harmonics of the loudspeaker over the fundamental. They are not in the reference and so not cancelled.
DISTORTION_MAX = 0.1
# ERLE above which the canceller reports itself converged.
ERLE_MIN_DB = 10.0
# Half of a frame; the other half is left for everything else.
PROCESSING_MAX_MS = FRAME_MS / 2


def sound_findings(settings: Settings, hearing: Hearing) -> Iterator[Finding]:
    """Yield the findings of microphones, echo paths, polarity, wired references and the loop."""
    found = {number: _with_polarity(hearing, number, path) for number, path in paths(hearing).items()}
    wires = [number for number, path in found.items() if path.wire]
    configured = settings.far_end.microphone_channels if settings.far_end else ()
    microphones = [number for number, path in found.items() if not path.wire and number not in configured]
    receiving = [number for number in microphones if found[number].heard]
    for number in microphones:
        name = "microphone" if len(found) == 1 else f"channel {number}"
        heard = hearing.heard[:, hearing.channels.index(number)]
        is_used = not settings.microphone.use or number in settings.microphone.use
        if not heard.any():
            yield _dead_finding(name, is_used, "gives nothing but zeros", "unmute it (alsamixer)", receiving)
            continue
        yield from _microphone_findings(name, hearing, heard)
        if not found[number].heard and receiving:
            text = f"what the loudspeaker plays is not heard here, though channel {receiving[0]} records it"
            yield _dead_finding(f"{name} echo", is_used, text, "connect it", receiving)
        else:
            yield from _path_findings(name, found[number], _clipped(heard))
    # Two that are of opposite polarity may cancel at every microphone while both play.
    yield from _loudspeaker_findings(hearing, receiving[:1] or microphones[:1])
    yield from _polarity_findings({number: found[number] for number in microphones})
    yield from _wire_findings(wires, configured)
    yield from _loop_findings(settings, hearing)


def _with_polarity(hearing: Hearing, number: int, path: acoustics.Path) -> acoustics.Path:
    """Return the path with the polarity that the channel has with one loudspeaker alone.

    While two play, the nearer one decides, and that one may be wired the wrong way.
    """
    if hearing.played.shape[1] < 2:
        return path
    alone = next((one for one in paths_apart(hearing, number) if one.heard), path)
    return replace(path, inverted=alone.inverted)


def _microphone_findings(name: str, hearing: Hearing, heard: Samples) -> Iterator[Finding]:
    rate_hz = hearing.rate_hz
    quiet = heard[round(SETTLE_S * rate_hz) : round(QUIET_S * rate_hz)]
    # The second term is the power of 16-bit quantisation.
    noise_dbfs = float(10 * np.log10(np.mean((quiet - quiet.mean()) ** 2) + (0.3 / 32768) ** 2))
    todo = "lower its gain (alsamixer), or move it away from what hums"
    yield judged(f"{name} noise", noise_dbfs > NOISE_MAX_DBFS, f"noise floor {noise_dbfs:.1f} dBFS", todo)
    if clipped := _clipped(heard):
        text = f"clips: {clipped} samples at full scale"
        yield Finding(f"{name} level", WRONG, text, "lower its gain (alsamixer), or the loudspeaker's volume")
    else:
        peak_dbfs = 20 * np.log10(max(float(np.abs(heard).max()), 0.5 / 32768))
        yield Finding(f"{name} level", FINE, f"does not clip, at most {peak_dbfs:.1f} dBFS")


def _clipped(heard: Samples) -> int:
    """Return the number of samples at full scale, 0 if it is at most CLIPPED_MAX."""
    count = int(np.sum(np.abs(heard) >= 32767 / 32768))
    return count if count > CLIPPED_MAX else 0


def _dead_finding(name: str, is_used: bool, text: str, todo: str, receiving: list[int]) -> Finding:
    """Return the finding of a channel that gives nothing; `receiving` are those that do."""
    if not is_used:
        return Finding(name, NOTE, f"{text}; it is not used")
    instead = f"leave it out: microphone.use: {receiving}" if receiving else "take another channel"
    return Finding(name, WRONG, text, f"{todo}, or {instead}")


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
    else:
        todo = "put the microphone nearer to who talks, or something soft into the room"
        text = f"decays by 60 dB in {path.decay_s:.2f} s"
        yield judged("room", path.decay_s > DECAY_MAX_S, text, todo)
    if clipped:
        yield Finding("loudspeaker", NOTE, "distortion unknown while the microphone clips")
    elif path.distortion is None:
        yield Finding("loudspeaker", NOTE, "distortion lost in the noise")
    else:
        text = f"distorts by {path.distortion:.1%}"
        yield judged("loudspeaker", path.distortion > DISTORTION_MAX, text, "lower its volume")


def _loudspeaker_findings(hearing: Hearing, microphone: list[int]) -> Iterator[Finding]:
    """Compare two loudspeakers, each alone, at a microphone, if there is one."""
    if hearing.played.shape[1] < 2 or not microphone:
        return
    apart = dict(zip(("left", "right"), paths_apart(hearing, microphone[0]), strict=True))
    for name, path in apart.items():
        if path.heard:
            delay = f"{1000 * path.delay_s:.1f} ms behind what is played"
            yield Finding(f"{name} speaker", FINE, f"{delay}, echo return loss {-path.gain_db:.1f} dB")
        else:
            todo = "connect it, turn it up (alsamixer), or speaker: {channels: 1}"
            yield Finding(f"{name} speaker", WRONG, "is not heard", todo)
    if apart["left"].inverted != apart["right"].inverted and all(path.heard for path in apart.values()):
        text = "left and right are of opposite polarity: what both play alike is weak"
        yield Finding("speakers", NOTE, text, "turn the wires of one of them round")


def _polarity_findings(microphones: dict[int, acoustics.Path]) -> Iterator[Finding]:
    """Compare the polarity of the channels. `microphones` has the echo paths by channel number."""
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
    todo = "periods: 8, or stop what else keeps the processor busy"
    yield judged("xruns", lost > 0, f"{lost or 'none'} in {duration_s(settings):.0f} s", todo)
    slow_ms = hearing.latency.processing.p99_ms
    text = f"{slow_ms:.1f} ms for each {FRAME_MS:.0f} ms, 99 % of the time"
    yield judged("processor", slow_ms > PROCESSING_MAX_MS, text, "sample_rate_hz: 16000")
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
    todo = "look after what is wrong above; it may need longer"
    yield judged("echo cancellation", core.erle_db < ERLE_MIN_DB, text, todo)


def suggested_lines(settings: Settings, hearing: Hearing) -> list[str]:
    """Return lines of YAML for the measured devices, channels and delay."""
    found = paths(hearing)
    wires = [number for number, path in found.items() if path.wire]
    heard = [number for number, path in found.items() if path.heard and not path.wire]
    heard = heard or [number for number in found if number not in wires]
    microphone, speaker = settings.microphone, settings.speaker
    more = f", channels: {microphone.channels}" if microphone.channels > 1 else ""
    more += f", use: {heard}" if heard and len(heard) < microphone.channels else ""
    lines = [f'microphone: {{device: "{microphone.device}"{more}}}']
    if wires:
        lines.append(f"far_end: {{microphone_channels: {wires}}}")
    elif speaker and speaker.device:
        both = ", channels: 2" if speaker.channels == 2 else ""
        lines.append(f'speaker: {{device: "{speaker.device}"{both}}}')
    delays_ms = [1000 * found[number].delay_s for number in heard if found[number].heard]
    if delays_ms and min(delays_ms) <= STREAM_DELAY_MAX_MS and not wires:
        lines.append(f"stream_delay_ms: {min(delays_ms):.0f}    # where the search begins")
    return lines
