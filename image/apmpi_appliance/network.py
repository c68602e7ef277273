"""Takes over network.yaml and authorized_keys from the boot partition: Wi-Fi, a fixed address, SSH.

    python3 -m apmpi_appliance.network

Both files are optional. Without network.yaml the wired network asks for an address (DHCP), and Wi-Fi is
off. SSH is off unless authorized_keys has a key; there are no passwords. A network.yaml with a mistake:
network-error.txt beside it says what is wrong, and it is as if it were not there.
"""

import ipaddress
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from apmpi_appliance.places import BOOT, DATA, ROOT, replace, tell_user

NAME = "network.yaml"
ERROR_NAME = "network-error.txt"
KEYS_NAME = "authorized_keys"
WIFI_KEYS = ("name", "password", "country")
KEYS = ("wifi", "address", "gateway", "dns")


class NetworkError(ValueError):
    """Not usable; `str()` is one sentence."""


@dataclass(frozen=True, slots=True)
class Network:
    """address: with its prefix length, like 192.168.1.20/24; without it DHCP is asked."""

    wifi_name: str | None = None
    wifi_password: str | None = None
    wifi_country: str | None = None
    address: str | None = None
    gateway: str | None = None
    dns: str | None = None


def parse(text: str) -> Network:
    """Raises NetworkError."""
    try:
        given = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise NetworkError(f"{NAME}{line}: not valid YAML, expected KEY: VALUE lines") from None
    values = _mapping({} if given is None else given, "", KEYS)
    wifi = _mapping(values.get("wifi", {}), "wifi", WIFI_KEYS)
    network = Network(
        # What IEEE 802.11 and WPA allow.
        wifi_name=_text(wifi, "name", "1 to 32 bytes", lambda text: 1 <= len(text.encode()) <= 32),
        wifi_password=_text(wifi, "password", "8 to 63 characters", lambda text: 8 <= len(text) <= 63),
        wifi_country=_text(
            wifi, "country", "two letters, like DE", lambda text: len(text) == 2 and text.isalpha()
        ),
        address=_text(values, "address", "an address like 192.168.1.20/24", _is_interface),
        gateway=_text(values, "gateway", "an address like 192.168.1.1", _is_address),
        dns=_text(values, "dns", "an address like 192.168.1.1", _is_address),
    )
    for key in ("name", "password", "country") if wifi else ():
        if key not in wifi:
            raise NetworkError(f"{NAME}: wifi.{key}: missing, expected name, password and country")
    if (network.gateway or network.dns) and not network.address:
        raise NetworkError(f"{NAME}: address: missing, expected it beside gateway and dns")
    return network


def _mapping(given: object, key: str, known: tuple[str, ...]) -> dict[str, object]:
    where = f"{NAME}: {key + ': ' if key else ''}"
    if not isinstance(given, dict):
        raise NetworkError(f"{where}expected keys with values ({', '.join(known)})")
    for name in given:
        if name not in known:
            raise NetworkError(f"{where}{name}: unknown key, expected one of {', '.join(known)}")
    return given


def _text(values: dict[str, object], key: str, expected: str, is_good: Callable[[str], bool]) -> str | None:
    if key not in values:
        return None
    text = values[key]
    if not isinstance(text, str):
        # 12345678 is a number to YAML, and NO is false.
        raise NetworkError(f"{NAME}: {key}: not text for YAML, expected {expected}, in quotes")
    if not (text.isprintable() and is_good(text)):
        raise NetworkError(f"{NAME}: {key}: {text!r} given, expected {expected}")
    return text


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_interface(text: str) -> bool:
    address, _, prefix = text.partition("/")
    return (
        _is_address(address)
        and prefix.isdigit()
        and int(prefix) <= ipaddress.ip_address(address).max_prefixlen
    )


def take_over(root: Path = ROOT) -> list[str]:
    """Writes what networkd, iwd and sshd read, for this boot only. The services to be started."""
    services = []
    boot = root / BOOT
    network = Network()
    try:
        if (boot / NAME).exists():
            network = parse((boot / NAME).read_bytes().decode("utf-8-sig", errors="replace"))
    except NetworkError as error:
        tell_user(root, ERROR_NAME, f"{error}\n")
        print(error)
    else:
        tell_user(root, ERROR_NAME, "")
    if network.address:
        replace(root / "run/systemd/network/70-apmpi.network", _networkd(network))
    if network.wifi_name:
        replace(root / "etc/iwd/main.conf", f"[General]\nCountry={(network.wifi_country or '').upper()}\n")
        replace(root / "var/lib/iwd" / _iwd_name(network.wifi_name), _iwd(network), mode=0o600)
        services.append("iwd.service")
    keys = boot / KEYS_NAME
    if keys.exists() and any(_is_key(line) for line in keys.read_text(errors="replace").splitlines()):
        replace(root / "etc/ssh/authorized_keys", keys.read_bytes(), mode=0o600)
        services.append("ssh.service")
    return services


def _networkd(network: Network) -> str:
    lines = ["[Match]", "Name=e* wl*", "", "[Network]", f"Address={network.address}", "MulticastDNS=yes"]
    lines += [f"Gateway={network.gateway}"] if network.gateway else []
    lines += [f"DNS={network.dns}"] if network.dns else []
    return "\n".join([*lines, ""])


def _iwd_name(network_name: str) -> str:
    """iwd.network(5): the name itself if it is plain, else in hexadecimal."""
    plain = network_name.isascii() and all(char.isalnum() or char in " _-" for char in network_name)
    return f"{network_name}.psk" if plain else f"={network_name.encode().hex()}.psk"


def _iwd(network: Network) -> str:
    password = network.wifi_password or ""
    # As GLib's key files have it; leading blanks would be lost.
    escaped = password.replace("\\", r"\\")
    blanks = len(escaped) - len(escaped.lstrip(" "))
    return "[Security]\nPassphrase=" + r"\s" * blanks + escaped.lstrip(" ") + "\n"


def _is_key(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


if __name__ == "__main__":
    host_key = ROOT / DATA / "ssh/ssh_host_ed25519_key"
    services = take_over()
    if "ssh.service" in services and not host_key.exists():
        host_key.parent.mkdir(mode=0o700, exist_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key)], check=True)
    if services:
        subprocess.run(["systemctl", "start", "--no-block", *services], check=True)
