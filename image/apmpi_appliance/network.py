"""Command that takes network.yaml and authorized_keys of the boot partition over: Wi-Fi, page, updates, SSH.

    python3 -m apmpi_appliance.network

Both files are optional. Without network.yaml the wired network asks for an address (DHCP), Wi-Fi is off, the
page (`apmpi web`) is on, without a password, and no updates are fetched. SSH is off unless there is a key;
there are no passwords for it. A network.yaml with a mistake is ignored, and network-error.txt beside it
reports the mistake; the page is off then, since the file may have switched it off. Lines of authorized_keys
that are no keys are left out and reported in authorized_keys-error.txt.

The files of Raspberry Pi Imager (apmpi_appliance.imager) are taken over in the same way: a name; and one more
Wi-Fi and more keys, beside those of the two files.

The page's password and the token for Prometheus are replaced in network.yaml by their hashes, from which a
reader of the card cannot learn them.
"""

import ipaddress
import re
import socket
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from apmpi.cards.text_file import compose_yaml, printable, read_text, yaml_values
from apmpi.errors import FileError
from apmpi.tools.web import access, metrics_token
from apmpi_appliance import apart, fetch, imager
from apmpi_appliance.places import BOOT, DATA, ROOT, replace, tell_user, writable

NAME = "network.yaml"
ERROR_NAME = "network-error.txt"
KEYS_NAME = "authorized_keys"
KEYS_ERROR_NAME = "authorized_keys-error.txt"
USER_DATA_ERROR_NAME = "user-data-error.txt"
NETWORK_CONFIG_ERROR_NAME = "network-config-error.txt"
HOST_NAME = "etc/hostname"
HOSTS = "etc/hosts"
HOST_KEY = f"{DATA}/ssh/ssh_host_ed25519_key"
WIFI_KEYS = ("name", "password", "country")
UPDATES_KEYS = ("url", "at")
PAGE_PASSWORD = "page_password"
METRICS_TOKEN = "metrics_token"
KEYS = ("wifi", "address", "gateway", "dns", "page", PAGE_PASSWORD, METRICS_TOKEN, "updates")
# What is kept as its hash: the hash's form, the hash of a given text, and the file for `apmpi web`.
SECRETS = {
    PAGE_PASSWORD: (access.RECORD, access.record_of, access.PASSWORD_FILE),
    METRICS_TOKEN: (metrics_token.RECORD, metrics_token.record_of, metrics_token.TOKEN_FILE),
}
# systemd listens for the page, and starts it with the first request.
PAGE_SERVICE = "apmpi-web.socket"
# Fetches updates once a day, at the time of the drop-in below the root folder.
UPDATES_TIMER = "apmpi-update-fetch.timer"
UPDATES_TIME = f"run/systemd/system/{UPDATES_TIMER}.d/time.conf"
UPDATES_URL = re.compile(r"https://[A-Za-z0-9.-]{1,100}(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]{0,100})?")
# Of the boot partition: whoever signs the certificate of the updates' server, if it is none of Debian's list.
AUTHORITY_NAME = "updates-ca.pem"
# A line by sshd(8): options, if any, then the key's type and the key in base64.
PUBLIC_KEY = re.compile(r"(^|\s)(sk-)?(ssh|ecdsa)-[\w.@-]+\s+[A-Za-z0-9+/]+=*(\s|$)", re.ASCII)


class NetworkError(FileError):
    """network.yaml is not usable; `str()` is one sentence."""


@dataclass(frozen=True, slots=True)
class Network:
    """Network settings.

    address         with its prefix length, like 192.168.1.20/24; None: DHCP
    page            whether there is one
    page_password   as given, or what is kept of it (apmpi.tools.web.access)
    metrics_token   the same (apmpi.tools.web.metrics_token)
    updates_url     folder of the server with updates, ends with /; None: no updates are fetched
    updates_at      time of day (UTC), like 03:30; None: the timer's own
    """

    wifi_name: str | None = None
    wifi_password: str | None = None
    wifi_country: str | None = None
    address: str | None = None
    gateway: str | None = None
    dns: str | None = None
    page: bool = True
    page_password: str | None = None
    metrics_token: str | None = None
    updates_url: str | None = None
    updates_at: str | None = None


def parse(text: str) -> Network:
    """Return the settings of a network.yaml. Raises FileError."""
    given = yaml_values(text, NAME)
    values = _mapping({} if given is None else given, "", KEYS)
    wifi = _mapping(values.get("wifi", {}), "wifi", WIFI_KEYS)
    updates = _mapping(values.get("updates", {}), "updates", UPDATES_KEYS)
    url = _text(updates, "url", "a folder like https://example.org/apmpi/", UPDATES_URL.pattern)
    network = Network(
        # Limits of IEEE 802.11 and WPA.
        wifi_name=_text(wifi, "name", "1 to 32 bytes", _is_name),
        wifi_password=_text(wifi, "password", "8 to 63 characters", r"[ -~]{8,63}"),
        wifi_country=_text(wifi, "country", "two letters, like DE", r"[A-Za-z]{2}"),
        address=_text(values, "address", "an address like 192.168.1.20/24", _is_interface),
        gateway=_text(values, "gateway", "an address like 192.168.1.1", _is_address),
        dns=_text(values, "dns", "an address like 192.168.1.1", _is_address),
        page=_switch(values, "page"),
        page_password=_secret(values, PAGE_PASSWORD, "a password", access.length_problem),
        metrics_token=_secret(values, METRICS_TOKEN, "a token", metrics_token.token_problem),
        updates_url=url and f"{url.rstrip('/')}/",
        updates_at=_text(updates, "at", "a time like 03:30", r"([01][0-9]|2[0-3]):[0-5][0-9]"),
    )
    if "updates" in values and not url:
        raise NetworkError(f"{NAME}: updates.url: missing, expected the folder of a server")
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


def _text(
    values: dict[str, object], key: str, expected: str, is_good: str | Callable[[str], bool]
) -> str | None:
    """Return a value as text. `is_good` is a pattern or a predicate. Raises NetworkError."""
    if key not in values:
        return None
    text = values[key]
    if not isinstance(text, str):
        # 12345678 is a number to YAML, and NO is false.
        raise NetworkError(f"{NAME}: {key}: not text for YAML, expected {expected}, in quotes")
    good = re.fullmatch(is_good, text) is not None if isinstance(is_good, str) else is_good(text)
    if not (text.isprintable() and good):
        raise NetworkError(f"{NAME}: {key}: '{printable(text)}' given, expected {expected}")
    return text


def _switch(values: dict[str, object], key: str) -> bool:
    """Return a value that is on unless it is given. Raises NetworkError."""
    given = values.get(key, True)
    if not isinstance(given, bool):
        raise NetworkError(f"{NAME}: {key}: '{printable(str(given))}' given, expected on or off")
    return given


def _secret(
    values: dict[str, object], key: str, expected: str, problem_of: Callable[[str], str]
) -> str | None:
    """Return a secret or its record. Raises NetworkError, without the secret in its sentence."""
    secret = values.get(key)
    record, _, _ = SECRETS[key]
    if secret is None or (isinstance(secret, str) and record.fullmatch(secret)):
        return secret
    if not isinstance(secret, str):
        raise NetworkError(f"{NAME}: {key}: not text for YAML, expected {expected} in quotes")
    if problem := problem_of(secret):
        raise NetworkError(f"{NAME}: {key}: {problem}")
    if not secret.isprintable():
        raise NetworkError(f"{NAME}: {key}: a control character given, expected {expected}")
    return secret


def _is_name(text: str) -> bool:
    return 1 <= len(text.encode(errors="replace")) <= 32


def _is_address(text: str) -> bool:
    try:
        # networkd does not accept zones of IPv6 (fe80::1%eth0).
        return ipaddress.ip_address(text) is not None and "%" not in text
    except ValueError:
        return False


def _is_interface(text: str) -> bool:
    address, _, prefix = text.partition("/")
    return (
        _is_address(address)
        and re.fullmatch(r"[0-9]{1,3}", prefix) is not None
        and int(prefix) <= ipaddress.ip_address(address).max_prefixlen
    )


@dataclass(slots=True)
class Taken:
    """Services and keys that the files of the boot partition ask for."""

    wifi: bool = False
    page: bool = False
    updates: bool = False
    keys: list[str] = field(default_factory=list)

    def services(self) -> list[str]:
        """Return the services to be started."""
        asked = {PAGE_SERVICE: self.page, "iwd.service": self.wifi, "ssh.service": bool(self.keys)}
        asked[UPDATES_TIMER] = self.updates
        return [service for service, is_asked in asked.items() if is_asked]


def take_over(root: Path = ROOT) -> list[str]:
    """Write the files of networkd, iwd and sshd for this boot, and return the services to be started.

    Each file is taken by itself: a mistake in one is reported beside it and does not affect the others.
    """
    # A network.yaml decides on the page, and one with a mistake leaves it off.
    taken = Taken(page=not (root / BOOT / NAME).exists())
    for name, error_name, take in (
        (imager.USER_DATA_NAME, USER_DATA_ERROR_NAME, _take_user_data),
        (imager.NETWORK_NAME, NETWORK_CONFIG_ERROR_NAME, _take_network_config),
        (NAME, ERROR_NAME, _take_network),
        (KEYS_NAME, KEYS_ERROR_NAME, _take_keys),
    ):
        problem = ""
        try:
            if (root / BOOT / name).exists():
                problem = take(root, taken)
        except FileError as error:
            problem = str(error)
        except Exception as error:
            problem = f"{name}: could not be taken over ({error})"
        if problem:
            print(problem, flush=True)
        tell_user(root, error_name, f"{problem}\n" if problem else "")
    if taken.keys:
        replace(root / "etc/ssh/authorized_keys", "\n".join([*taken.keys, ""]), mode=0o600)
    return taken.services()


def _take_network(root: Path, taken: Taken) -> str:
    """Take the file over, and return a warning or "". Raises FileError and OSError."""
    text = read_text(root / BOOT / NAME, "a YAML file", name=NAME)
    fields, hashed = apart.call(NAME, _network_fields, text)
    network = Network(**fields)
    # Each value becomes a line in a file of another program.
    _check_printable(NAME, fields)
    if hashed is not None:
        _write_hashed(root, hashed)
    if network.address:
        replace(root / "run/systemd/network/70-apmpi.network", _networkd(network))
    for key, (_, _, file) in SECRETS.items():
        if fields[key]:
            replace(root / "etc/apmpi" / file, f"{fields[key]}\n", mode=0o600)
    wifi = imager.Wifi(network.wifi_name, network.wifi_password, network.wifi_country)
    taken.wifi |= _write_wifi(root, wifi)
    taken.page = network.page
    if network.updates_url:
        _write_updates(root, network.updates_url, network.updates_at)
        taken.updates = True
    return ""


def _write_updates(root: Path, url: str, at: str | None) -> None:
    """Write what apmpi-update-fetch.service and its timer read. Raises FileError and OSError."""
    authority = root / fetch.AUTHORITY
    if (root / BOOT / AUTHORITY_NAME).exists():
        replace(authority, read_text(root / BOOT / AUTHORITY_NAME, "certificates", name=AUTHORITY_NAME))
    else:
        authority.unlink(missing_ok=True)
    replace(root / fetch.URL, f"{url}\n")
    if at:
        # Empty: in place of the unit's own.
        replace(root / UPDATES_TIME, f"[Timer]\nOnCalendar=\nOnCalendar=*-*-* {at}:00 UTC\n")
    else:
        (root / UPDATES_TIME).unlink(missing_ok=True)


def _take_network_config(root: Path, taken: Taken) -> str:
    """Take Imager's network-config over, as _take_network."""
    text = read_text(root / BOOT / imager.NETWORK_NAME, "a YAML file", name=imager.NETWORK_NAME)
    fields = apart.call(imager.NETWORK_NAME, _wifi_fields, text)
    _check_printable(imager.NETWORK_NAME, fields)
    taken.wifi |= _write_wifi(root, imager.Wifi(**fields))
    return ""


def _wifi_fields(text: str) -> dict[str, Any]:
    return asdict(imager.wifi(text))


def _check_printable(name: str, fields: dict[str, Any]) -> None:
    """Raises NetworkError unless each value that is not a switch is one line, if the child answers so."""
    texts = [value for value in fields.values() if value is not None and not isinstance(value, bool)]
    if not all(isinstance(value, str) and value.isprintable() for value in texts):
        raise NetworkError(f"{name}: not usable, expected printable text")


def _write_wifi(root: Path, wifi: imager.Wifi) -> bool:
    """Write iwd's files for a Wi-Fi, and return whether there is one."""
    if not wifi.name:
        return False
    if wifi.country:
        replace(root / "etc/iwd/main.conf", f"[General]\nCountry={wifi.country.upper()}\n")
    replace(root / "var/lib/iwd" / _iwd_name(wifi.name), _iwd(wifi), mode=0o600)
    return True


def _network_fields(text: str) -> tuple[dict[str, Any], str | None]:
    """Return the fields of parse() with the secrets' records, and the text with those in the secrets' places,
    None if there is nothing to replace. Raises FileError.
    """
    fields, hashed = asdict(parse(text)), text
    for key, (record, record_of, _) in SECRETS.items():
        secret = fields[key]
        if secret is None or record.fullmatch(secret):
            continue
        fields[key] = record_of(secret)
        root = compose_yaml(hashed, NAME)
        assert isinstance(root, yaml.MappingNode)  # as parse() found
        (given,) = (value for name, value in root.value if name.value == key)
        begin, end = given.start_mark, given.end_mark
        if begin.line != end.line:
            raise NetworkError(f"{NAME}: {key}: several lines given, expected one, in quotes")
        hashed = f'{hashed[: begin.index]}"{fields[key]}"{hashed[end.index :]}'
    return fields, None if hashed == text else hashed


def _write_hashed(root: Path, text: str) -> None:
    """Write network.yaml anew; a failure is reported in the journal."""
    try:
        with writable(root / BOOT):
            replace(root / BOOT / NAME, text)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{NAME}: its secrets stay readable on the card, which can't be written to ({error})")


def _take_user_data(root: Path, taken: Taken) -> str:
    """Take Imager's user-data over, as _take_network: the name, with /etc/hosts, and the keys."""
    text = read_text(root / BOOT / imager.USER_DATA_NAME, "a YAML file", name=imager.USER_DATA_NAME)
    given = imager.UserData(**apart.call(imager.USER_DATA_NAME, _user_data_fields, text))
    if given.hostname is not None:
        if not imager.HOST_LABEL.fullmatch(given.hostname):
            raise NetworkError(f"{imager.USER_DATA_NAME}: not usable, expected a name")
        hosts = (root / HOSTS).read_text()
        replace(root / HOSTS, re.sub(r"(?m)^127\.0\.1\.1 .*$", f"127.0.1.1 {given.hostname}", hosts))
        replace(root / HOST_NAME, f"{given.hostname}\n")
    return _add_keys(taken, given.keys, f"{imager.USER_DATA_NAME}: ssh_authorized_keys")


def _user_data_fields(text: str) -> dict[str, Any]:
    return asdict(imager.user_data(text))


def _take_keys(root: Path, taken: Taken) -> str:
    """Take the keys, as _take_network."""
    lines = read_text(root / BOOT / KEYS_NAME, "public SSH keys", name=KEYS_NAME).splitlines()
    return _add_keys(taken, lines, KEYS_NAME)


def _add_keys(taken: Taken, lines: list[str], name: str) -> str:
    """Take lines that are keys; the first that is none is reported, as sshd would not."""
    filled = [
        (number, line) for number, line in enumerate(lines, 1) if line.strip() and line.lstrip()[0] != "#"
    ]
    keys = [line for _, line in filled if PUBLIC_KEY.search(line)]
    taken.keys += keys
    for number, line in filled:
        if line not in keys:
            expected = "lines like those of a .pub file: ssh-ed25519 AAAA..."
            return f"{name}:{number}: no public key, expected {expected}"
    return ""


def make_host_key(root: Path = ROOT) -> None:
    """Make the device's SSH host key unless a readable one exists: half a key would prevent any login.

    Raises OSError and CalledProcessError.
    """
    key = root / HOST_KEY
    asked = ["ssh-keygen", "-y", "-P", "", "-f", str(key)]
    if key.exists():
        if subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0:
            return
        print("the SSH host key is damaged: made anew, SSH clients will ask", flush=True)
    with tempfile.TemporaryDirectory() as memory:
        made = Path(memory) / key.name
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "apmpi", "-f", str(made)]
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
        replace(key, made.read_bytes(), mode=0o600)


def _networkd(network: Network) -> str:
    lines = ["[Match]", "Name=e* wl*", "", "[Network]", f"Address={network.address}", "MulticastDNS=yes"]
    lines += [f"Gateway={network.gateway}"] if network.gateway else []
    lines += [f"DNS={network.dns}"] if network.dns else []
    return "\n".join([*lines, ""])


def _iwd_name(network_name: str) -> str:
    """Return a file name by iwd.network(5): the network's name if it is plain, else in hexadecimal."""
    plain = network_name.isascii() and all(char.isalnum() or char in " _-" for char in network_name)
    return f"{network_name}.psk" if plain else f"={network_name.encode().hex()}.psk"


def _iwd(wifi: imager.Wifi) -> str:
    """Return the content of that file."""
    password, settings = wifi.password or "", "[Settings]\nHidden=true\n" if wifi.hidden else ""
    if len(password) == 64:
        return f"[Security]\nPreSharedKey={password.lower()}\n{settings}"
    # Escaped as in GLib's key files, where leading blanks would be lost.
    escaped = password.replace("\\", r"\\")
    blanks = len(escaped) - len(escaped.lstrip(" "))
    return "[Security]\nPassphrase=" + r"\s" * blanks + escaped.lstrip(" ") + "\n" + settings


def main() -> None:
    services = take_over()
    name = (ROOT / HOST_NAME).read_text().strip()
    if socket.gethostname() != name:  # systemd has read the image's own at its start
        socket.sethostname(name)
    if "ssh.service" in services:
        try:
            make_host_key()
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"no SSH host key ({error}), SSH stays off", flush=True)
            services.remove("ssh.service")
    if UPDATES_TIMER in services:
        subprocess.run(["systemctl", "daemon-reload"], check=True)  # for the drop-in with the time
    if services:
        subprocess.run(["systemctl", "start", "--no-block", *services], check=True)


if __name__ == "__main__":
    main()
