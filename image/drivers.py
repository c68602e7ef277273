"""Drivers that the image is made for: each must be in it with all modules that it is linked to.

A folder of modules that is left out (left-out.txt) may hold what a driver needs. Then the kernel cannot load
the driver, and its device is not there.
"""

import lzma
import re
import tarfile
from pathlib import Path, PurePath

DRIVERS = (
    *("snd-usb-audio", "snd-aloop"),
    # The Pi's own sound: jack, HDMI, I2S, and the HATs of overlays/.
    *(
        "snd-bcm2835",
        "vc4",
        "snd-soc-bcm2835-i2s",
        "snd-soc-simple-card",
        "snd-soc-wm8960",
        "snd-soc-pcm5102a",
    ),
    # USB host and device, I2C, watchdog, Ethernet, Wi-Fi.
    *("dwc2", "xhci-pci", "usb_f_uac2", "i2c-bcm2835", "bcm2835_wdt"),
    *("smsc95xx", "lan78xx", "genet", "brcmfmac"),
)


def incomplete(packages: Path) -> dict[str, list[str]]:
    """Return the modules that are missing, those of a driver by its name, from the tar file of packages."""
    with tarfile.open(packages) as tar:
        modules: dict[str, tarfile.TarInfo] = {}
        builtin: set[str] = set()
        for member in tar:
            if member.name.endswith("/modules.builtin"):
                content = tar.extractfile(member)
                assert content is not None
                builtin |= {_name(line) for line in content.read().decode().split()}
            elif re.search(r"/modules/.*\.ko(\.xz)?$", member.name):
                modules[_name(member.name)] = member
        found: dict[str, list[str]] = {}
        for driver in DRIVERS:
            wanted, seen = [driver], set()
            while wanted:
                module = _name(wanted.pop())
                if module in seen or module in builtin:
                    continue
                seen.add(module)
                if module in modules:
                    wanted += _linked_to(tar, modules[module])
                else:
                    found.setdefault(driver, []).append(module)
    return found


def check(packages: Path) -> None:
    """Raises SystemExit if a driver cannot be loaded."""
    for driver, missing in incomplete(packages).items():
        raise SystemExit(
            f"image: {driver} cannot be loaded, the kernel's {', '.join(missing)} is not in the image: "
            "expected it in a package of packages.txt, and not in left-out.txt (or in LEFT_IN of debian.py)"
        )


def _name(path: str) -> str:
    """Return the kernel's name of a module: "kernel/sound/snd-aloop.ko.xz" is snd_aloop."""
    return PurePath(path).name.partition(".")[0].replace("-", "_")


def _linked_to(tar: tarfile.TarFile, member: tarfile.TarInfo) -> list[str]:
    """Return the modules that one needs, which it names in its section .modinfo."""
    content = tar.extractfile(member)
    assert content is not None
    code = content.read()
    if member.name.endswith(".xz"):
        code = lzma.decompress(code)
    named = re.search(rb"\0depends=([^\0]*)\0", code)
    return [name for name in (named[1].decode() if named else "").split(",") if name]
