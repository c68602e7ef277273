"""Takes over apmpi.yaml from the boot partition.

    python3 -m apmpi_appliance.configuration start     at boot: waits for a microphone, chooses the devices
    python3 -m apmpi_appliance.configuration reload    on `systemctl reload apmpi`: the devices stay as chosen

The file is what the service reads anyway, but its four endpoints may be left out: then they are chosen by
what is plugged in (apmpi_appliance.devices). Whoever names a microphone names the others, too.

A file with a mistake is not taken: apmpi-error.txt beside it says what is wrong, and what ran last goes on.
The service's own file, /etc/apmpi/apmpi.yaml, is made anew at each boot; without a microphone there is
none, and the service does not start.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from apmpi.cards.text_file import compose_yaml, read_text
from apmpi.errors import FileError
from apmpi.settings import parse
from apmpi_appliance import apart, devices
from apmpi_appliance.places import BOOT, DATA, ROOT, RUN, holds, replace, tell_user

NAME = "apmpi.yaml"
ERROR_NAME = "apmpi-error.txt"
# Below the root folder. The first is what a PC sees as delivered, the last two are chosen and made.
DELIVERED = "usr/share/apmpi/apmpi.yaml"
LAST_GOOD = f"{DATA}/appliance/apmpi.yaml"
CHOSEN = f"{RUN}/devices.yaml"
IN_USE = "etc/apmpi/apmpi.yaml"
# USB devices behind two hubs have been found by then; whoever comes later is noticed by udev.
MICROPHONE_TIMEOUT_S = 10.0
# The other half of a pair of devices, the speaker perhaps, that comes up after the first.
COMPANION_S = 1.0
# Without a microphone the rest of the file can be judged, too.
PLACEHOLDERS = 'microphone: {device: "null"}\nfar_end: {device: "default"}\n'


def start(root: Path = ROOT, sleep: Callable[[float], None] = time.sleep) -> str:
    """What was done, in one sentence. Waits for a microphone, unless the user has named one."""
    endpoints = devices.chosen(root)
    waited_s = MICROPHONE_TIMEOUT_S if _names_microphone(root) else 0.0
    while not endpoints and waited_s < MICROPHONE_TIMEOUT_S:
        sleep(0.2)
        waited_s += 0.2
        if endpoints := devices.chosen(root):
            sleep(COMPANION_S)
            endpoints = devices.chosen(root)
    replace(root / CHOSEN, "".join(f"{key}: {value}\n" for key, value in endpoints.items()))
    return take_over(root)


def take_over(root: Path = ROOT) -> str:
    """The user's file if it is good, else the last good one. What was done, in one sentence."""
    chosen = (root / CHOSEN).read_text()
    try:
        text = _read(root / BOOT / NAME)
        complete = apart.call(NAME, completed, text, chosen)
    except FileError as error:
        problem = str(error)
    else:
        tell_user(root, ERROR_NAME, "")
        _keep(root, text)
        return _use(root, complete, NAME)

    tell_user(root, ERROR_NAME, f"{problem}\n\nUntil that is mended, the last good settings are used.\n")
    for source in (LAST_GOOD, DELIVERED):
        try:
            complete = apart.call(NAME, completed, _read(root / source), chosen)
        except FileError:
            continue  # a last good file of another version, perhaps
        return f"{problem}; {_use(root, complete, 'the last good settings')}"
    raise AssertionError(f"{DELIVERED} is part of the image and tested")


def _keep(root: Path, text: str) -> None:
    """`text` as the last good settings; a card that can't be written to is no reason to do without sound."""
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
    """Raises FileError."""
    if not path.exists():
        raise FileError(f"{path.name}: missing, expected a YAML file")
    return read_text(path, "a YAML file", name=path.name)


def completed(text: str, chosen: str) -> str | None:
    """The user's settings with the chosen devices at the end. None: no microphone, neither named nor chosen.

    Lines keep their numbers. Raises ConfigError for whatever the service would refuse.
    """
    named = _keys(text)
    lines = [line for line in (chosen or PLACEHOLDERS).splitlines() if line.partition(":")[0] not in named]
    complete = (
        text if "microphone" in named else "\n".join([text, "# Chosen by what is plugged in:", *lines, ""])
    )
    parse(complete, NAME)
    return complete if chosen or "microphone" in named else None


def _keys(text: str) -> list[str]:
    """Keys of the outermost level; what is no such file is for the service's own reader to explain."""
    try:
        node = compose_yaml(text, NAME)
    except FileError:
        return []
    if not isinstance(node, yaml.MappingNode):
        return []
    return [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]


if __name__ == "__main__":
    print({"start": start, "reload": take_over}[sys.argv[1]](), flush=True)
