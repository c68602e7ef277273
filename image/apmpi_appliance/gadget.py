"""Command that makes the Pi a USB sound card: the kernel's UAC2 function, set up through configfs.

    python3 -m apmpi_appliance.gadget

Started by udev as soon as the kernel has a USB device port (Zero 2 W: the inner micro USB socket, 4: the
USB-C socket). A PC plays on and records from the card UAC2Gadget: mono, 16 bits, at the rate of
apmpi.cards.choice.
"""

from pathlib import Path

from apmpi.cards.choice import HOST_RATE_HZ
from apmpi_appliance.places import ROOT

# Linux Foundation, "Audio Gadget": linux/Documentation/usb/gadget_configfs and usb.ids.
VENDOR, PRODUCT = "0x1d6b", "0x0101"
BYTES_PER_SAMPLE = 2
ONE_CHANNEL = 0b1
# In mA, sent in units of 2 mA; the most that USB 2.0 can declare. A Pi draws more.
MAX_POWER_MA = 500


def set_up(root: Path = ROOT) -> str:
    """Make the gadget if there is none, and return a sentence on what was done."""
    ports = sorted(path.name for path in (root / "sys/class/udc").glob("*"))
    if not ports:
        return "no USB device port"
    gadget = root / "sys/kernel/config/usb_gadget/apmpi"
    udc = gadget / "UDC"
    if udc.exists() and udc.read_text().strip():
        return f"already a sound card at {udc.read_text().strip()}"
    _write(gadget, idVendor=VENDOR, idProduct=PRODUCT)
    serial = root / "proc/device-tree/serial-number"
    _write(
        gadget / "strings/0x409",
        manufacturer="apmpi",
        product="apmpi speakerphone",
        serialnumber=serial.read_text().strip("\0\n") if serial.exists() else "0",
    )
    function = gadget / "functions/uac2.usb0"
    # c_*: played by the PC, captured here; p_*: played here, recorded by the PC.
    for direction in "cp":
        _write(
            function,
            **{
                f"{direction}_srate": HOST_RATE_HZ,
                f"{direction}_ssize": BYTES_PER_SAMPLE,
                f"{direction}_chmask": ONE_CHANNEL,
            },
        )
    configuration = gadget / "configs/c.1"
    _write(configuration, MaxPower=MAX_POWER_MA)
    link = configuration / function.name
    if not link.is_symlink():
        link.symlink_to(function)
    # Last: this connects it to the PC.
    udc.write_text(ports[0])
    return f"a sound card at {ports[0]}"


def _write(folder: Path, **attributes: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in attributes.items():
        (folder / name).write_text(str(value))


if __name__ == "__main__":
    print(set_up(), flush=True)
