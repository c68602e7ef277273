"""`apmpi setup`: chooses the devices, measures them, writes the service's configuration and starts it.

Nothing is written before all answers are given and every device has opened. An existing configuration is kept
under another name. The service is stopped meanwhile, because it holds the devices.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from apmpi.cards import alsa, choice, pcm
from apmpi.cards.replace import replace
from apmpi.cards.text_file import one_line
from apmpi.errors import CommandError, EndpointError
from apmpi.service.yaml_reader import SYSTEM_FILE, parse
from apmpi.settings import Settings
from apmpi.tools import doctor
from apmpi.tools.endpoint_check import endpoint_states
from apmpi.tools.listening import listen, paths
from apmpi.tools.sound_checks import sound_findings, suggested_lines

UNIT = "apmpi.service"
# Writes the configuration at each boot of the image.
APPLIANCE_UNIT = "apmpi-configuration.service"
CONFIG = SYSTEM_FILE
# Names the kernel module of the virtual card, for the next boot.
MODULES = Path("/etc/modules-load.d/apmpi.conf")
# The service's sign that sound flows (apmpi.service.sound_mark), and the longest time until it appears: the
# start of Python on a Zero 2 W takes 5 s, the first second of sound one more.
SOUND_MARK = Path("/run/apmpi/sound")
SOUND_TIMEOUT_S = 20.0
HEAD = """\
# The service's configuration, written by `apmpi setup`. What each key means: apmpi.yaml in
# /usr/share/doc/apmpi/examples. After a change: sudo systemctl reload apmpi

"""


def main(yes: bool, device: str | None, with_sound: bool) -> int:
    """Return the exit status: 1 if the service brings no sound. Raises CommandError, EndpointError."""
    _check_machine(yes)
    microphone, speaker = (device, device) if device else _asked_devices(yes)
    pc = choice.pc_is_connected(Path("/")) and _asked_pc(yes)
    with _stopped_service():
        settings = doctor.card_settings(microphone, speaker)
        _check_devices(settings)
        if not pc:
            _provide_cable()
        measure = with_sound and speaker is not None
        measure = measure and _confirmed("Measure card and room? It plays for ten seconds.", yes)
        text = HEAD + "".join(f"{line}\n" for line in _lines(settings, pc, measure))
        _check_devices(parse(text, str(CONFIG)))
        print(f"\n{one_line(str(CONFIG))}:\n\n{text}")
        if not _confirmed(f"Write this{_replaced()} and start the service?", yes):
            print("nothing was changed")
            return 0
        _write(text, with_cable=not pc)
        return _start(pc)


def _check_machine(yes: bool) -> None:
    """Raises CommandError for whatever would stop setup later."""
    if not Path("/run/systemd/system").exists():
        raise CommandError("no systemd runs here, expected one for the service (apmpi run works without)")
    if os.geteuid() != 0:
        raise CommandError(f"{CONFIG} and the service need root, expected: sudo apmpi setup")
    if _systemctl("cat", APPLIANCE_UNIT).returncode == 0:
        raise CommandError("this is apmpi's image, expected settings in apmpi.yaml on its boot partition")
    if _systemctl("cat", UNIT).returncode != 0:
        raise CommandError(f"{UNIT} is not installed, expected the Debian package")
    if not yes and not sys.stdin.isatty():
        raise CommandError("standard input is no terminal to ask at, expected --yes for every default")


# ---- questions


def _asked_devices(yes: bool) -> tuple[str, str | None]:
    """Return the ALSA names of microphone and loudspeaker; questions only where there is a choice."""
    every = choice.cards(Path("/"))
    first, _ = choice.best(every)
    if first is None:
        raise CommandError("no sound card records here, expected a microphone: plug one in, or --device NAME")
    recording = [card for card in every if card.capture is not None]
    microphone = _asked("Which card has the microphone?", _first(recording, first), yes)
    playing = [card for card in every if card.playback is not None]
    if microphone in playing:
        speaker: choice.Card | None = microphone
    else:
        speaker = _asked("Which card has the loudspeaker?", playing, yes) if playing else None
    return (
        choice.device(microphone.id, microphone.capture),
        choice.device(speaker.id, speaker.playback) if speaker else None,
    )


def _first(cards: list[choice.Card], default: choice.Card) -> list[choice.Card]:
    return [default, *(card for card in cards if card != default)]


def _asked(question: str, cards: Sequence[choice.Card], yes: bool) -> choice.Card:
    """Return the card that the user names by its number; the first is the default."""
    if len(cards) == 1 or yes:
        return cards[0]
    print(question)
    for number, card in enumerate(cards, start=1):
        print(f"  {number}  {one_line(card.id)}")
    while True:
        answer = _answer("[1] ") or "1"
        if answer.isdecimal() and 1 <= int(answer) <= len(cards):
            return cards[int(answer) - 1]
        print(f"{one_line(answer)} given, expected a number from 1 to {len(cards)}")


def _asked_pc(yes: bool) -> bool:
    return _confirmed("Is the PC at the USB port the other side, and not programs on this computer?", yes)


def _confirmed(question: str, yes: bool) -> bool:
    if yes:
        return True
    while True:
        answer = _answer(f"{question} [Y/n] ").lower()
        if answer in ("", "y", "yes", "n", "no"):
            return answer in ("", "y", "yes")
        print(f"{one_line(answer)} given, expected y or n")


def _answer(prompt: str) -> str:
    try:
        return input(prompt).strip()
    except EOFError:
        raise CommandError("the input ended before the last answer; nothing was changed") from None


# ---- the configuration


def _lines(settings: Settings, pc: bool, measure: bool) -> list[str]:
    """Return the configuration's lines, with what was measured. Raises EndpointError."""
    if measure:
        doctor.announce(settings)
        hearing = listen(settings)
        if all(path.wire for path in paths(hearing).values()):
            name = settings.microphone.device
            raise EndpointError(f"'{name}' records only what is played, expected a card with a microphone")
        for finding in sound_findings(settings, hearing):
            doctor.show(finding)
        lines = suggested_lines(settings, hearing)
    else:
        lines = [f'microphone: {{device: "{settings.microphone.device}"}}']
        lines += [f'speaker: {{device: "{settings.speaker.device}"}}'] if settings.speaker else []
    known = {line.partition(":")[0] for line in lines}
    other_side = [f"{key}: {value}" for key, value in choice.other_side(pc).items() if key not in known]
    return [f"sample_rate_hz: {settings.sample_rate_hz}", *lines, *other_side]


def _check_devices(settings: Settings) -> None:
    """Raises EndpointError for the first device that does not open."""
    for _, _, found in endpoint_states(settings):
        if isinstance(found, EndpointError):
            raise found


def _provide_cable() -> None:
    """Load the kernel's virtual card if it is not there. Raises CommandError."""
    if pcm.abilities(choice.PROGRAMS_PLAY, alsa.CAPTURE, 1) is not None:
        return
    said = "modprobe is not installed"
    if shutil.which("modprobe"):
        done = subprocess.run(["modprobe", "snd-aloop"], stderr=subprocess.PIPE, text=True)
        said = done.stderr.strip() or "it is loaded, but its card does not open"
    if pcm.abilities(choice.PROGRAMS_PLAY, alsa.CAPTURE, 1) is None:
        raise CommandError(
            f"the virtual card for programs on this computer is missing ({one_line(said)}), "
            "expected a kernel with snd-aloop (Debian's cloud kernels have none)"
        )


def _replaced() -> str:
    return f" (the present file becomes {_kept_as().name})" if CONFIG.exists() else ""


def _kept_as() -> Path:
    """Return the first free name of apmpi.yaml.1, apmpi.yaml.2, ..."""
    number = 1
    while (kept := CONFIG.with_name(f"{CONFIG.name}.{number}")).exists():
        number += 1
    return kept


def _write(text: str, with_cable: bool) -> None:
    """Write the configuration, or leave everything as it was. Raises CommandError."""
    os.umask(0o022)  # the service's user reads these files
    try:
        CONFIG.parent.mkdir(parents=True, exist_ok=True)
        if with_cable:
            MODULES.parent.mkdir(parents=True, exist_ok=True)
            replace(MODULES, b"# The virtual card of apmpi's configuration.\nsnd-aloop\n", mode=0o644)
        if CONFIG.exists():
            kept = _kept_as()
            kept.hardlink_to(CONFIG)
            print(f"the configuration so far is now {kept}")
        replace(CONFIG, text.encode(), mode=0o644)
    except OSError as error:
        raise CommandError(f"{error.filename}: cannot be written ({error.strerror})") from None


# ---- the service


def _systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemctl", *arguments], capture_output=True, text=True)


@contextlib.contextmanager
def _stopped_service() -> Iterator[None]:
    """Stops the service; at the end it runs again, if it did before."""
    ran = _systemctl("is-active", UNIT).returncode == 0
    if ran:
        print("the service is stopped meanwhile")
        _systemctl("stop", UNIT)
    try:
        yield
    finally:
        if ran:
            _systemctl("start", UNIT)


def _start(pc: bool) -> int:
    """Start the service, at each boot too, and report it. Return the exit status."""
    _systemctl("reset-failed", UNIT)
    for verb in ("enable", "restart"):
        done = _systemctl(verb, UNIT)
        if done.returncode != 0:
            print(f"apmpi: the service does not start: {one_line(done.stderr.strip())}", file=sys.stderr)
            return 1
    deadline_s = time.monotonic() + SOUND_TIMEOUT_S
    while not SOUND_MARK.exists():
        if time.monotonic() > deadline_s:
            status = _systemctl("show", "--property=StatusText", "--value", UNIT).stdout.strip()
            print(f"apmpi: no sound yet: {one_line(status)} (journalctl -u apmpi)", file=sys.stderr)
            return 1
        time.sleep(0.1)
    print("the service runs, and sound flows; apmpi monitor shows it")
    if not pc:
        print("for programs: arecord -D apmpi, aplay -D apmpi")
    return 0
