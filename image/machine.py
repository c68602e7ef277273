"""The image in a virtual machine, with the Pi's firmware simulated.

QEMU's `virt` machine has no such firmware. Its work is done here, from the same card image: read slot.txt,
take kernel, initramfs and command line from the folder that it names, and start them; again after each reset.

Time in the machine is the count of executed instructions (-icount) while it is busy, and the host's time
while it is idle, disk accesses included. So load on the host makes an idle machine late, and disturbs sound
through the kernel's snd-aloop (90 xruns in 10 s at a load of 5, 1 in 20 s on a quiet host). `sleep=off` is
not used: the clock of an idle guest jumps then (measured: by 25 s while waiting for the disk).
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

# 1 ns for each instruction, as one core of a Zero 2 W at 1 GHz; it has four.
INSTRUCTION_SHIFT = 0
SECTOR_BYTES = 512
MEMORY_MIB = 512  # a Zero 2 W
# A root shell at the serial line; the image has no password to log in with.
SHELL = "console=ttyAMA0 systemd.debug_shell=ttyAMA0"
# The connected device: a second card of the kernel's snd-aloop.
PLUGGED_IN = "snd_aloop.enable=1,1 snd_aloop.id=Loopback,Mic"
PROMPT = b"apmpi-prompt:"


class Card:
    """Boot partition of a card image, accessed from the host."""

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
        """Return the folder that the firmware reads from slot.txt."""
        found = re.search(r"^os_prefix=(\S+)\s*$", self.read("slot.txt").decode(), re.MULTILINE)
        assert found is not None
        return found[1]


class Machine:
    """One run of QEMU, from power on or from a snapshot until the power is cut or the guest resets.

    sound_cards: what the kernel's command line says of snd-aloop's cards.
    """

    def __init__(
        self,
        folder: Path,
        card: Card,
        disk: Path,
        disk_format: str,
        snapshot: str | None = None,
        sound_cards: str = PLUGGED_IN,
    ) -> None:
        prefix = card.prefix()
        for name in ("vmlinuz", "initrd.img"):
            (folder / name).write_bytes(card.read(prefix + name))
        command_line = f"{card.read(prefix + 'cmdline.txt').decode().strip()} {SHELL} {sound_cards}"
        self.page_port, self.ssh_port = free_port(), free_port()
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
            # Nothing leaves the guest; the host reaches its page and its login.
            *("-netdev", f"user,id=net,restrict=on,{self._forwarded()}"),
            *("-device", "virtio-net-pci,netdev=net,romfile="),
            # For plug(): a USB host, and what a USB sound card plays is not heard.
            *("-device", "qemu-xhci", "-audiodev", "none,id=silence"),
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
        """End the machine at once."""
        self.process.kill()
        self.process.wait()
        self._serial.close()
        self._console.close()

    def listen_until(self, moment_s: float) -> None:
        """Collect the guest's output until `time.monotonic()` has this value."""
        while time.monotonic() < moment_s:
            self._listen()

    def card_as_it_is(self, disk: Path, target: Path) -> Path:
        """Return a copy of the card as a power cut at this moment would leave it."""
        self._tell("stop")
        copy_of(disk, target)
        self._tell("cont")
        return target

    def wait_for_reset(self, timeout_s: float) -> None:
        """Wait until the guest restarts itself. Raises subprocess.TimeoutExpired."""
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
        """Return the output up to the pattern's end. Raises TimeoutError, also if the machine has ended."""
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
        """Wait for the shell that has just started or was in the snapshot, and turn off its echo."""
        self._serial.sendall(
            b"stty -echo; export LC_ALL=C TERM=dumb SYSTEMD_PAGER= PS1= PS2=; echo rea''dy\n"
        )
        self.wait_for(rb"ready\r?\n", 120)

    def run(self, command: str, timeout_s: float = 300) -> tuple[int, str]:
        """Return exit status and output of a shell command."""
        self._serial.sendall(command.encode() + b"; echo apmpi-''prompt: $?\n")
        text = self.wait_for(PROMPT + rb" \d+\r?\n", timeout_s).replace(b"\r", b"").decode(errors="replace")
        output, _, status = text.rpartition(PROMPT.decode())
        return int(status), output

    def check(self, command: str, timeout_s: float = 300) -> str:
        """Return the output of a shell command that must succeed."""
        status, output = self.run(command, timeout_s)
        assert status == 0, f"{command}: exit status {status}\n{output}"
        return output

    def plug(self, name: str) -> None:
        """Plug in a USB sound card, which plays only: QEMU has none that records."""
        self._tell(f"device_add usb-audio,audiodev=silence,id={name}")

    def unplug(self, name: str) -> None:
        self._tell(f"device_del {name}")

    def _forwarded(self) -> str:
        ports = ((self.page_port, 80), (self.ssh_port, 22))
        return ",".join(f"hostfwd=tcp:127.0.0.1:{host}-:{guest}" for host, guest in ports)

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
    """Return a copy of a card, as a sparse file."""
    subprocess.run(["cp", "--sparse=always", image, target], check=True)
    return target


def overlay_of(image: Path, target: Path) -> Path:
    """Return a card whose writes go to a file beside it, which can hold snapshots."""
    target.unlink(missing_ok=True)
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(image.absolute()), "-F", "raw"]
    subprocess.run([*command, str(target)], check=True)
    return target


def free_port() -> int:
    """Return a TCP port of the host that nobody listens at."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port: int = asked.getsockname()[1]
        return port


def has_qemu() -> bool:
    return shutil.which("qemu-system-aarch64") is not None
