"""`apmpi doctor`: checks of machine, devices and sound, each with the one thing to do about a fault.

machine_checks.py   the machine
journal_checks.py   the service's last day, from the journal
endpoint_check.py   the configured devices and files
listening.py        plays noise and a sweep through the service's loop, records the microphone
acoustics.py        impulse response, decay and distortion from the sweep
sound_checks.py     findings from the recording, and lines for apmpi.yaml
"""

import time
from collections.abc import Iterator
from pathlib import Path

from apmpi.cards import alsa, pcm
from apmpi.cards.text_file import one_line
from apmpi.errors import EndpointError
from apmpi.service.yaml_reader import load
from apmpi.settings import CARD_CHANNELS_MAX, Endpoint, Settings
from apmpi.tools.endpoint_check import endpoint_states
from apmpi.tools.finding import FINE, NOTE, WRONG, Finding
from apmpi.tools.journal_checks import journal_findings
from apmpi.tools.listening import PEAK_DBFS, duration_s, listen, loudspeakers
from apmpi.tools.machine_checks import machine_findings
from apmpi.tools.sound_checks import sound_findings, suggested_lines

NAME_WIDTH = 20


def main(path: Path | None, device: str | None, with_sound: bool) -> int:
    """Print the findings and return the exit status: 1 if one is WRONG, else 0. Raises ConfigError."""
    settings = _settings(path, device)
    findings = []
    for finding in _all(settings, with_sound):
        findings.append(finding)
        show(finding)
    wrong = sum(finding.verdict == WRONG for finding in findings)
    print(f"\n{'all is fine' if not wrong else f'{wrong} to look after'}")
    return 1 if wrong else 0


def show(finding: Finding) -> None:
    print(f"{finding.verdict:<6} {finding.name:<{NAME_WIDTH}} {one_line(finding.text)}", flush=True)
    if finding.todo:
        print(f"{'':<6} {'':<{NAME_WIDTH}} -> {finding.todo}", flush=True)


def _settings(path: Path | None, device: str | None) -> Settings | None:
    """Return those of the configuration or of one card for both directions, None without any card."""
    if path is not None:
        return load(path)
    if device is None:
        both = set(pcm.hardware(alsa.CAPTURE)) & set(pcm.hardware(alsa.PLAYBACK))
        if not both:
            return None
        device = f"plug{min(both)}"
    return card_settings(device, device)


def card_settings(microphone: str, speaker: str | None) -> Settings:
    """Return settings for two devices, with the channels that the microphone's has."""
    able = pcm.abilities(microphone, alsa.CAPTURE, 1)
    channels = min(max(able[0], 1), CARD_CHANNELS_MAX) if able else 1
    return Settings(
        microphone=Endpoint(device=microphone, channels=channels),
        speaker=Endpoint(device=speaker) if speaker else None,
    )


def _all(settings: Settings | None, with_sound: bool) -> Iterator[Finding]:
    """Yield all findings in order, each when it is made, and print the lines for apmpi.yaml."""
    yield from machine_findings(Path("/"))
    yield from journal_findings(time.time())
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
    announce(settings)
    try:
        hearing = listen(settings)
    except EndpointError as error:
        yield Finding("sound", WRONG, str(error), "apmpi check says more")
        return
    yield from sound_findings(settings, hearing)
    print("\nlines for apmpi.yaml:")
    for line in suggested_lines(settings, hearing):
        print(f"  {one_line(line)}")


def announce(settings: Settings) -> None:
    sweeps = "a sweep, one at the left, one at the right" if loudspeakers(settings) == 2 else "a sweep"
    plays = f"plays {duration_s(settings):.0f} s at {PEAK_DBFS:.0f} dBFS"
    print(f"... {plays}: noise, then {sweeps}; please be quiet", flush=True)


def _learned_gain(settings: Settings) -> Finding:
    on = settings.features.learned_gain and settings.features.noise_suppression
    if on:
        return Finding("learned gain", FINE, "on")
    return Finding("learned gain", NOTE, "off", "features: {noise_suppression: true, learned_gain: true}")


def _endpoint_findings(settings: Settings) -> Iterator[Finding]:
    """Yield a finding for each configured endpoint."""
    for key, _, found in endpoint_states(settings):
        if isinstance(found, str):
            yield Finding(key, FINE, found)
        else:
            busy = "is busy" in str(found)
            todo = "stop what uses it (systemctl stop apmpi)" if busy else "apmpi check lists what there is"
            yield Finding(key, WRONG, str(found), todo)
