"""Files of Raspberry Pi Imager on the boot partition, if it was asked for name, Wi-Fi and SSH.

    user-data         cloud-init's (docs.cloud-init.io): `hostname`, and `ssh_authorized_keys` of all users
    network-config    netplan's (netplan.readthedocs.io): the first access point below `wifis`

All else in them does not concern this device and is ignored: users, passwords, time zone, keyboard, packages.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from apmpi.cards.text_file import printable, yaml_values
from apmpi.errors import FileError

USER_DATA_NAME = "user-data"
NETWORK_NAME = "network-config"
# A label of RFC 1123.
HOST_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
# What Imager makes of a password: 256 bits of PBKDF2 (IEEE 802.11i), in hexadecimal.
WIFI_PASSWORD = re.compile(r"[ -~]{8,63}|[0-9A-Fa-f]{64}")


@dataclass(frozen=True, slots=True)
class UserData:
    """Content of user-data."""

    hostname: str | None = None
    keys: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Wifi:
    """Content of network-config; `name` is None without any Wi-Fi, `country` if it is not given."""

    name: str | None = None
    password: str | None = None
    country: str | None = None
    hidden: bool = False


def user_data(text: str) -> UserData:
    """Return the content of a user-data. Raises FileError."""
    values = _group(yaml_values(text, USER_DATA_NAME))
    hostname = values.get("hostname")
    if hostname is not None and not (isinstance(hostname, str) and HOST_LABEL.fullmatch(hostname)):
        given = f"{USER_DATA_NAME}: hostname: '{printable(str(hostname))}' given"
        raise FileError(f"{given}, expected 1 to 63 letters, digits and -")
    users = values.get("users")
    holders = [values, *(users if isinstance(users, list) else [])]
    lists = [_group(holder).get("ssh_authorized_keys") for holder in holders]
    keys = [key for given in lists if isinstance(given, list) for key in given]
    if not all(isinstance(key, str) and key.isprintable() for key in keys):
        raise FileError(f"{USER_DATA_NAME}: ssh_authorized_keys: no text given, expected public SSH keys")
    return UserData(hostname, keys)


def wifi(text: str) -> Wifi:
    """Return the content of a network-config. Raises FileError."""
    values = _group(yaml_values(text, NETWORK_NAME))
    # netplan itself has `network` as the only key; cloud-init takes the file without it, too.
    devices = _group(_group(values.get("network", values)).get("wifis"))
    for device in map(_group, devices.values()):
        for name, point in _group(device.get("access-points")).items():
            password = _group(point).get("password") or ""
            country = device.get("regulatory-domain")
            where = f"{NETWORK_NAME}: '{printable(str(name))}'"
            if not (isinstance(name, str) and name.isprintable() and 1 <= len(name.encode()) <= 32):
                raise FileError(f"{where}: is no Wi-Fi, expected a name of 1 to 32 bytes")
            if not (isinstance(password, str) and WIFI_PASSWORD.fullmatch(password)):
                raise FileError(f"{where}: expected a password of 8 to 63 characters, in quotes")
            if country is not None and not (
                isinstance(country, str) and re.fullmatch("[A-Za-z]{2}", country)
            ):
                raise FileError(f"{where}: regulatory-domain: expected two letters, like DE")
            return Wifi(name, password, country, _group(point).get("hidden") is True)
    return Wifi()


def _group(value: object) -> dict[str, Any]:
    """Return the keys below a place, none if there is something else."""
    return value if isinstance(value, dict) else {}
