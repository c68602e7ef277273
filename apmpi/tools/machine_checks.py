"""Checks of the machine for `apmpi doctor`: kernels, permissions, clock source, governor, power supply."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from apmpi.api.apm import KERNELS
from apmpi.cards import realtime
from apmpi.tools.finding import FINE, NOTE, WRONG, Finding, judged

# Bits of the Raspberry Pi firmware's get_throttled: as it is now; 16 bits higher, as it was since the start.
POWER_FLAGS = ((0, "too little voltage"), (2, "throttled"), (3, "too hot"))
# Clock sources that are read over a bus or by interrupts instead of a register of the processor.
SLOW_CLOCKS = ("acpi_pm", "hpet", "jiffies", "pit", "refined-jiffies")


def machine_findings(root: Path) -> Iterator[Finding]:
    """Yield the findings of the machine whose /dev and /sys are below `root`, and of this process."""
    yield from _permission(root)
    yield _real_time_rights()
    yield from board_findings(root)


def board_findings(root: Path) -> Iterator[Finding]:
    """Yield the findings that are the same for each process."""
    slow = KERNELS == "scalar"
    yield Finding(
        "arithmetic", NOTE if slow else FINE, f"{KERNELS} kernels{': no vectors here' if slow else ''}"
    )
    yield from _clock_source(root)
    yield from _governor(root)
    yield from _power(root)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _permission(root: Path) -> Iterator[Finding]:
    nodes = sorted((root / "dev/snd").glob("pcm*"))
    if not nodes:
        yield Finding("kernel sound", NOTE, "no card in /dev/snd: only ALSA plugins can be used")
        return
    closed = [node for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if closed:
        todo = "sudo usermod -aG audio $USER, then log in anew"
        yield Finding("permission", WRONG, f"/dev/snd/{closed[0].name} may not be opened", todo)
    else:
        yield Finding("permission", FINE, f"{len(nodes)} PCM devices in /dev/snd may be opened")


def _real_time_rights() -> Finding:
    with realtime.real_time() as refused:
        pass
    if not refused:
        return Finding("real-time rights", FINE, "priority and locked memory are granted")
    todo = "the service has them; in a terminal, see rtprio and memlock in limits.conf(5)"
    return Finding("real-time rights", NOTE, f"not granted here: {', '.join(refused)}", todo)


def _clock_source(root: Path) -> Iterator[Finding]:
    source = _read(root / "sys/devices/system/clocksource/clocksource0/current_clocksource")
    if source is None:
        return
    slow = source in SLOW_CLOCKS
    todo = "take clocksource= out of the kernel's command line"
    yield judged("clock source", slow, f"{source} is slow to read" if slow else source, todo)


def _governor(root: Path) -> Iterator[Finding]:
    """Yield the frequency governor; nothing on processors of one speed and in virtual machines."""
    folders = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
    governors = {text for folder in folders if (text := _read(folder / "scaling_governor"))}
    drivers = {text for folder in folders if (text := _read(folder / "scaling_driver"))}
    if not governors:
        return
    # With intel_pstate and amd_pstate, powersave follows the load, as ondemand does with other drivers.
    slow = "powersave" in governors and not any(driver.endswith("_pstate") for driver in drivers)
    if slow:
        todo = "echo ondemand | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        yield Finding("governor", WRONG, "powersave keeps the processor at its lowest speed", todo)
    else:
        yield Finding("governor", FINE, ", ".join(sorted(governors)))


def _power(root: Path) -> Iterator[Finding]:
    """Yield the state of a Raspberry Pi's power supply.

    It is read from the firmware's flags (raspberrypi.com/documentation/computers/os.html, get_throttled),
    else from the kernel's alarm (Documentation/hwmon/raspberrypi-hwmon).
    """
    todo = "use a stronger power supply, and a shorter or thicker cable"
    flags = _read(root / "sys/devices/platform/soc/soc:firmware/get_throttled")
    if flags is not None and re.fullmatch(r"(0x)?[0-9a-fA-F]{1,8}", flags):
        value = int(flags, 16)
        now, past = ([text for bit, text in POWER_FLAGS if value >> shift + bit & 1] for shift in (0, 16))
        if now or past:
            when = "now" if now else "since the start"
            cool = "give it a heat sink" if "voltage" not in " ".join(now or past) else todo
            yield Finding("power", WRONG, f"{', '.join(now or past)} {when}", cool)
        else:
            yield Finding("power", FINE, "no undervoltage, not throttled since the start")
        return
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if _read(folder / "name") == "rpi_volt":
            low = _read(folder / "in0_lcrit_alarm") == "1"
            yield judged("power", low, "too little voltage" if low else "no undervoltage", todo)
