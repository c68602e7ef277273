"""The image in a virtual machine, with the Pi's firmware played by us.

QEMU's `virt` machine has no such firmware. So what it would do is done here, from the very card image: read
slot.txt, take kernel, initramfs and command line from the folder it names, start them; and again after each
reset.

Time in the machine is the count of executed instructions (-icount), and while it is idle the host's. So a
busy host makes it slower, never late, and does not disturb sound through the kernel's snd-aloop. Not with
`sleep=off`, where an idle guest's clock jumps: waiting for the disk once made it jump by 25 s.
"""

import re
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

# 1 ns for an instruction: what one core of a Zero 2 W does at 1 GHz; it has four.
INSTRUCTION_SHIFT = 0
SECTOR_BYTES = 512
MEMORY_MIB = 512  # a Zero 2 W
# A root shell at the serial line; the image has no password to log in with.
SHELL = "console=ttyAMA0 systemd.debug_shell=ttyAMA0"
# What is plugged in: a second card of the kernel's snd-aloop.
PLUGGED_IN = "snd_aloop.enable=1,1 snd_aloop.id=Loopback,Mic"
PROMPT = b"apmpi-prompt:"


class Card:
    """A card image's boot partition, from outside."""

    def __init__(self, image: Path) -> None:
        self.image = image
        with image.open("rb") as file:
            table = file.read(SECTOR_BYTES)[446:510]
        start_sector = struct.unpack_from("<I", table, 8)[0]
        self._fat = f"{image}@@{start_sector * SECTOR_BYTES}"

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError."""
        done = subprocess.run(["mtype", "-i", self._fat, f"::{name}"], capture_output=True)
        if done.returncode != 0:
            raise FileNotFoundError(f"{name} of {self.image}: {done.stderr.decode().strip()}")
        return done.stdout

    def write(self, name: str, content: bytes) -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            subprocess.run(["mcopy", "-o", "-i", self._fat, file.name, f"::{name}"], check=True)

    def prefix(self) -> str:
        """What the firmware reads out of config.txt's `include slot.txt`."""
        found = re.search(r"^os_prefix=(\S+)\s*$", self.read("slot.txt").decode(), re.MULTILINE)
        assert found is not None
        return found[1]


class Machine:
    """One run of QEMU, from power on or from a snapshot until the power is cut or the guest resets."""

    def __init__(
        self, folder: Path, card: Card, disk: Path, disk_format: str, snapshot: str | None = None
    ) -> None:
        prefix = card.prefix()
        for name in ("vmlinuz", "initrd.img"):
            (folder / name).write_bytes(card.read(prefix + name))
        command_line = f"{card.read(prefix + 'cmdline.txt').decode().strip()} {SHELL} {PLUGGED_IN}"
        serial, monitor = folder / "serial", folder / "monitor"
        for path in (serial, monitor):
            path.unlink(missing_ok=True)
        command = [
            *("qemu-system-aarch64", "-M", "virt,gic-version=3", "-cpu", "cortex-a53", "-m", str(MEMORY_MIB)),
            *("-accel", "tcg,thread=single", "-smp", "1"),
            *("-icount", f"shift={INSTRUCTION_SHIFT}", "-rtc", "clock=vm"),
            *("-kernel", folder / "vmlinuz", "-initrd", folder / "initrd.img", "-append", command_line),
            *("-drive", f"file={disk},if=virtio,format={disk_format}"),
            *("-device", "i6300esb", "-action", "watchdog=reset"),
            *("-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile="),
            *("-display", "none", "-nodefaults", "-no-reboot"),
            *("-chardev", f"socket,id=serial,path={serial},server=on,wait=off", "-serial", "chardev:serial"),
            *("-monitor", f"unix:{monitor},server=on,wait=off"),
            *(("-loadvm", snapshot) if snapshot else ()),
        ]
        self._console = (folder / "console.log").open("ab")
        self._console.write(f"\n---- power on, {prefix}\n".encode())
        self._seen = b""
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self._serial = self._connect(serial)
        self._monitor_path = monitor

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut_power()

    def cut_power(self) -> None:
        """At once, whatever it does."""
        self.process.kill()
        self.process.wait()
        self._serial.close()
        self._console.close()

    def listen_until(self, moment_s: float) -> None:
        """Of time.monotonic(); what the guest says is noted meanwhile."""
        while time.monotonic() < moment_s:
            self._listen()

    def card_as_it_is(self, disk: Path, target: Path) -> Path:
        """A copy of what a power cut at this moment would leave on the card."""
        self._tell("stop")
        copy_of(disk, target)
        self._tell("cont")
        return target

    def wait_for_reset(self, timeout_s: float) -> None:
        """Until the guest restarts itself. Raises subprocess.TimeoutExpired."""
        end = time.monotonic() + timeout_s
        while self.process.poll() is None:
            self._listen()
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("reset", timeout_s)
        self.cut_power()

    def _connect(self, path: Path) -> socket.socket:
        end = time.monotonic() + 10
        while True:
            link = socket.socket(socket.AF_UNIX)
            try:
                link.connect(str(path))
            except OSError:
                link.close()
                if self.process.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.1)
            else:
                link.settimeout(0.2)
                return link

    def _listen(self) -> None:
        try:
            text = self._serial.recv(65536)
        except TimeoutError:
            return
        except ConnectionResetError:
            text = b""
        if not text:
            time.sleep(0.1)
        self._console.write(text)
        self._console.flush()
        self._seen += text

    def wait_for(self, pattern: bytes, timeout_s: float) -> bytes:
        """What came up to and with the pattern. Raises TimeoutError, also when the machine has ended."""
        end = time.monotonic() + timeout_s
        while True:
            if found := re.search(pattern, self._seen):
                text, self._seen = self._seen[: found.end()], self._seen[found.end() :]
                return text
            if time.monotonic() > end or self.process.poll() is not None:
                raise TimeoutError(
                    f"{pattern!r} not seen; the last was {self._seen[-1500:].decode(errors='replace')}"
                )
            self._listen()

    def wait_for_shell(self, timeout_s: float = 600) -> None:
        self.wait_for(rb"# ", timeout_s)
        self.take_shell()

    def take_shell(self) -> None:
        """A shell that doesn't echo, from the one that just came up or was in the snapshot."""
        self._serial.sendall(
            b"stty -echo; export LC_ALL=C TERM=dumb SYSTEMD_PAGER= PS1= PS2=; echo rea''dy\n"
        )
        self.wait_for(rb"ready\r?\n", 120)

    def run(self, command: str, timeout_s: float = 300) -> tuple[int, str]:
        """Exit status and output of a shell command."""
        self._serial.sendall(command.encode() + b"; echo apmpi-''prompt: $?\n")
        text = self.wait_for(PROMPT + rb" \d+\r?\n", timeout_s).replace(b"\r", b"").decode(errors="replace")
        output, _, status = text.rpartition(PROMPT.decode())
        return int(status), output

    def check(self, command: str, timeout_s: float = 300) -> str:
        """Output of a shell command that must succeed."""
        status, output = self.run(command, timeout_s)
        assert status == 0, f"{command}: exit status {status}\n{output}"
        return output

    def save(self, snapshot: str) -> None:
        self._tell(f"savevm {snapshot}")

    def _tell(self, command: str) -> None:
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(self._monitor_path))
            link.settimeout(120)
            for line in (command, None):
                seen = b""
                while not seen.endswith(b"(qemu) "):
                    seen += link.recv(4096)
                if line:
                    link.sendall(line.encode() + b"\n")


def copy_of(image: Path, target: Path) -> Path:
    """A card of its own; empty stretches take no room."""
    subprocess.run(["cp", "--sparse=always", image, target], check=True)
    return target


def overlay_of(image: Path, target: Path) -> Path:
    """A card whose writes go to a file beside it, with room for snapshots."""
    target.unlink(missing_ok=True)
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(image.absolute()), "-F", "raw"]
    subprocess.run([*command, str(target)], check=True)
    return target


def has_qemu() -> bool:
    return shutil.which("qemu-system-aarch64") is not None
