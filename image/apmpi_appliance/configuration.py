"""Command that takes over apmpi.yaml from the boot partition.

    python3 -m apmpi_appliance.configuration start     at boot: waits for a microphone, chooses the devices
    python3 -m apmpi_appliance.configuration reload    on `systemctl reload apmpi`: the devices stay as chosen

The file is a configuration of the service, except that its four endpoints may be left out: then they are
chosen among the connected devices (apmpi.cards.choice). In a file
that names a microphone none is chosen.

A file with a mistake is not taken: apmpi-error.txt beside it reports the mistake, and the last good settings
stay in use. The service's own file, /etc/apmpi/apmpi.yaml, is written at each boot; without a microphone
there is none, and the service does not start.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from apmpi.cards import choice
from apmpi.cards.text_file import compose_yaml, read_text
from apmpi.errors import FileError
from apmpi.service.yaml_reader import parse
from apmpi_appliance import apart
from apmpi_appliance.places import BOOT, DATA, ROOT, RUN, holds, replace, tell_user

NAME = "apmpi.yaml"
BEFORE_NAME = "apmpi-before.yaml"  # of apmpi_appliance.page
ERROR_NAME = "apmpi-error.txt"
# Paths below the root folder. The first is on the partition that a PC sees, the last two are generated.
DELIVERED = "usr/share/apmpi/apmpi.yaml"
LAST_GOOD = f"{DATA}/appliance/apmpi.yaml"
CHOSEN = f"{RUN}/devices.yaml"
IN_USE = "etc/apmpi/apmpi.yaml"
IN_USE_BEFORE = f"{IN_USE}.before"  # where the page looks for it
# USB devices behind two hubs are found by then; later ones are reported by udev.
MICROPHONE_TIMEOUT_S = 10.0
# The second of two separate devices, for example the speaker, may appear after the first.
COMPANION_S = 1.0
# Above the chosen devices in the service's own file.
CHOSEN_MARK = "# Chosen by what is plugged in:"
# Stands in for a microphone, so that the rest of the file can be checked without one.
PLACEHOLDERS = 'microphone: {device: "null"}\nfar_end: {device: "default"}\n'


def start(root: Path = ROOT, sleep: Callable[[float], None] = time.sleep) -> str:
    """Wait for a microphone unless the user has named one, take over the file, and return a sentence."""
    endpoints = choice.chosen(root)
    waited_s = MICROPHONE_TIMEOUT_S if _names_microphone(root) else 0.0
    while not endpoints and waited_s < MICROPHONE_TIMEOUT_S:
        sleep(0.2)
        waited_s += 0.2
        if endpoints := choice.chosen(root):
            sleep(COMPANION_S)
            endpoints = choice.chosen(root)
    replace(root / CHOSEN, "".join(f"{key}: {value}\n" for key, value in endpoints.items()))
    return take_over(root)


def take_over(root: Path = ROOT) -> str:
    """Take over the user's file if it is good, else the last good one, and return a sentence."""
    chosen = (root / CHOSEN).read_text()
    try:
        text = _read(root / BOOT / NAME)
        complete = apart.call(NAME, completed, text, chosen)
    except FileError as error:
        problem = str(error)
    else:
        tell_user(root, ERROR_NAME, "")
        _keep(root, text)
        _offer_before(root, chosen)
        return _use(root, complete, NAME)

    tell_user(root, ERROR_NAME, f"{problem}\n\nUntil that is mended, the last good settings are used.\n")
    for source in (LAST_GOOD, DELIVERED):
        try:
            complete = apart.call(NAME, completed, _read(root / source), chosen)
        except FileError:
            continue  # the last good file may be one of another version
        return f"{problem}; {_use(root, complete, 'the last good settings')}"
    raise AssertionError(f"{DELIVERED} is part of the image and tested")


def _offer_before(root: Path, chosen: str) -> None:
    """Write the file before for the page, as complete as the one in use, if there is a valid one."""
    before = root / IN_USE_BEFORE
    try:
        complete = apart.call(BEFORE_NAME, completed, _read(root / BOOT / BEFORE_NAME), chosen)
    except FileError:
        complete = None
    if complete is None:
        before.unlink(missing_ok=True)
    else:
        replace(before, complete)


def _keep(root: Path, text: str) -> None:
    """Keep `text` as the last good settings; a card that cannot be written to must not stop the sound."""
    if not holds(root / LAST_GOOD, text.encode()):
        try:
            replace(root / LAST_GOOD, text)
        except OSError as error:
            print(f"{NAME}: not kept as the last good settings ({error})", flush=True)


def _names_microphone(root: Path) -> bool:
    try:
        return "microphone" in apart.call(NAME, _keys, _read(root / BOOT / NAME))
    except FileError:
        return False


def _use(root: Path, text: str | None, name: str) -> str:
    path = root / IN_USE
    if text is None:
        path.unlink(missing_ok=True)
        return "no microphone found: plug one in, or name one in apmpi.yaml"
    replace(path, text)
    return f"{name} in use"


def _read(path: Path) -> str:
    """Return the user's text. Raises FileError."""
    if not path.exists():
        raise FileError(f"{path.name}: missing, expected a YAML file")
    return read_text(path, "a YAML file", name=path.name).replace("\r\n", "\n")


def completed(text: str, chosen: str) -> str | None:
    """Return the user's settings with the chosen devices at the end, None without any microphone.

    Lines keep their numbers. Raises ConfigError for everything that the service would refuse.
    """
    named = _keys(text)
    lines = [line for line in (chosen or PLACEHOLDERS).splitlines() if line.partition(":")[0] not in named]
    complete = text if "microphone" in named else "\n".join([text, CHOSEN_MARK, *lines, ""])
    parse(complete, NAME)
    return complete if chosen or "microphone" in named else None


def without_chosen(complete: str, chosen: str) -> str:
    """Return the settings of which `complete` is made, by completed(); all of it, as the user's own settings,
    if the devices in it are not those that were chosen. Raises ConfigError.
    """
    text, mark, _ = complete.rpartition(f"\n{CHOSEN_MARK}\n")
    if mark and completed(text, chosen) == complete:
        return text
    completed(complete, chosen)
    return complete


def _keys(text: str) -> list[str]:
    """Return the keys of the outermost level, none without such keys: the service's reader reports that."""
    try:
        node = compose_yaml(text, NAME)
    except FileError:
        return []
    if not isinstance(node, yaml.MappingNode):
        return []
    return [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]


if __name__ == "__main__":
    print({"start": start, "reload": take_over}[sys.argv[1]](), flush=True)
