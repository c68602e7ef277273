"""Trees like /proc/asound and sysfs, for given devices."""

from __future__ import annotations

from pathlib import Path

# As the kernel writes them: id, directions of DEV=0 (p, c), USB or not.
LOOPBACK = ("Loopback", "pc", False)
HDMI = ("vc4hdmi0", "p", False)
JACK = ("Headphones", "p", False)
SPEAKERPHONE = ("PowerConf", "pc", True)
USB_MICROPHONE = ("Snowball", "c", True)
USB_SPEAKER = ("UACDemoV10", "p", True)
HAT = ("wm8960soundcard", "pc", False)
I2S_DAC = ("sndrpihifiberry", "p", False)
GADGET = ("UAC2Gadget", "pc", False)

Plugged = tuple[str, str, bool]


def tree(root: Path, *cards: Plugged, udc_state: str | None = None) -> Path:
    asound = root / "proc/asound"
    lines = []
    for number, (name, directions, is_usb) in enumerate(cards):
        folder = asound / f"card{number}"
        folder.mkdir(parents=True)
        (folder / "id").write_text(f"{name}\n")
        (asound / name).symlink_to(f"card{number}")
        if is_usb:
            (folder / "usbid").write_text("1234:5678\n")
        text = "".join(
            f" : {word} 1" for key, word in (("p", "playback"), ("c", "capture")) if key in directions
        )
        lines.append(f"{number:02d}-00: {name} PCM : {name} PCM{text}\n")
    asound.mkdir(parents=True, exist_ok=True)
    (asound / "pcm").write_text("".join(lines))
    if udc_state:
        (root / "sys/class/udc/fe980000.usb").mkdir(parents=True)
        (root / "sys/class/udc/fe980000.usb/state").write_text(f"{udc_state}\n")
    return root
