"""Which version is started, and what an update must be, against a tree of files and with real signatures."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from apmpi_appliance import slots, update
from apmpi_appliance.places import BOOT


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """Runs version a; the key of its updates lies in `key`."""
    root = tmp_path / "root"
    for folder in (f"{BOOT}/a", "proc", "usr/share/apmpi", "run/apmpi-start", "data"):
        (root / folder).mkdir(parents=True)
    (root / "proc/cmdline").write_text("root=PARTUUID=a9d10001-02 boot=apmpi quiet\n")
    (root / slots.VERSION).write_text("1.0\n")
    (root / BOOT / slots.NAME).write_bytes(slots.text("a"))
    key = root / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (root / update.SIGNERS).write_text(f"{update.SIGNER} {key.with_suffix('.pub').read_text()}")
    return root


def signed(device: Path, content: bytes, key: str = "key") -> Path:
    command = ["ssh-keygen", "-q", "-Y", "sign", "-f", device / key, "-n", update.NAMESPACE]
    signature = subprocess.run(command, input=content, stdout=subprocess.PIPE, check=True).stdout
    file = device / "apmpi.update"
    file.write_bytes(signature.ljust(update.HEADER_BYTES, b"\n") + content)
    return file


CONTENT = b"hsqs" + bytes(range(256)) * 10_000


def test_a_signed_update_is_taken(device: Path) -> None:
    _, size = update.verify(signed(device, CONTENT), device)
    assert size == len(CONTENT)


@pytest.mark.parametrize("at", [update.HEADER_BYTES, update.HEADER_BYTES + 1_500_000, -1])
def test_one_changed_bit_is_refused(device: Path, at: int) -> None:
    file = signed(device, CONTENT)
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)
    with pytest.raises(update.UpdateError, match="damaged, or not signed"):
        update.verify(file, device)


def test_half_a_file_is_refused(device: Path) -> None:
    file = signed(device, CONTENT)
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(update.UpdateError, match="damaged"):
        update.verify(file, device)


def test_another_key_is_refused(device: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", device / "thief"], check=True)
    with pytest.raises(update.UpdateError, match="not signed by a key"):
        update.verify(signed(device, CONTENT, key="thief"), device)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", b"\n" * 10_000])
def test_any_other_file_is_refused(device: Path, content: bytes) -> None:
    file = device / "apmpi.update"
    file.write_bytes(content)
    with pytest.raises(update.UpdateError, match="not an update"):
        update.verify(file, device)


def test_what_is_refused_is_told_and_not_tried_again(device: Path) -> None:
    (device / BOOT / update.NAME).write_bytes(b"rubbish")
    before = (device / BOOT / slots.NAME).read_bytes()
    assert not update.main(None, device)
    assert "not an update" in (device / BOOT / slots.REPORT_NAME).read_text()
    assert not (device / BOOT / update.NAME).exists()
    assert (device / BOOT / "apmpi.refused").exists()
    assert (device / BOOT / slots.NAME).read_bytes() == before


def test_a_version_on_trial_installs_nothing(device: Path) -> None:
    (device / slots.TRIAL_MARK).touch()
    with pytest.raises(update.UpdateError, match="itself on trial"):
        update.install(signed(device, CONTENT), device)


def test_slot_files_are_one_sector_and_short_lines() -> None:
    for text in (slots.text("a"), slots.text("b", after="a")):
        assert len(text) == slots.SECTOR_BYTES
        # The firmware reads no more of a line.
        assert max(len(line) for line in text.decode().splitlines()) <= 98
    assert slots.text("b", after="a").startswith(b"os_prefix=b/\n# trial, after that a\n\n")


def test_the_initramfs_takes_a_trial_back(tmp_path: Path) -> None:
    """The very lines of the initramfs: sed finds the old version, dd puts its sector."""
    script = (Path(__file__).parents[2] / "image/initramfs/scripts/apmpi").read_text()
    lines = [line.strip() for line in script.splitlines()]
    find = next(line for line in lines if line.startswith("old=$(sed"))
    put = next(line for line in lines if line.startswith("dd if="))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / slots.NAME).write_bytes(slots.text("a"))
    for before, after in ((slots.text("b", after="a"), slots.text("a")), (slots.text("b"), slots.text("b"))):
        (tmp_path / slots.NAME).write_bytes(before)
        shell = f'{find}\nif [ -n "$old" ]; then {put}; fi'.replace("/run/apmpi-start/boot", str(tmp_path))
        subprocess.run(["sh", "-c", shell], check=True, stderr=subprocess.DEVNULL)
        assert (tmp_path / slots.NAME).read_bytes() == after


def test_a_trial_that_reached_ready_is_confirmed(device: Path) -> None:
    (device / "proc/cmdline").write_text("root=PARTUUID=a9d10001-03 boot=apmpi\n")
    (device / slots.TRIAL_MARK).touch()
    assert slots.confirm(device) == "updated: version 1.0 is in use"
    assert (device / BOOT / slots.NAME).read_bytes() == slots.text("b")
    assert not (device / slots.TRIAL_MARK).exists()
    assert "1.0 is in use" in (device / BOOT / slots.REPORT_NAME).read_text()


def test_the_old_version_tells_that_the_new_one_failed(device: Path) -> None:
    (device / slots.TRIED).parent.mkdir(parents=True)
    (device / slots.TRIED).write_text("2.0")
    assert "version 2.0 did not get as far as sound" in slots.confirm(device)
    assert slots.confirm(device) == "version 1.0 as before"
    assert (device / BOOT / slots.NAME).read_bytes() == slots.text("a")


def test_what_the_firmware_needs_is_copied_into_the_slot(device: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    (new / update.SLOT_FILES / "overlays").mkdir(parents=True)
    (new / "usr/share/apmpi").mkdir(parents=True)
    (new / "usr/share/apmpi/cmdline.txt").write_text("boot=apmpi\n")
    (new / update.SLOT_FILES / "vmlinuz").write_bytes(b"kernel")
    (new / update.SLOT_FILES / "overlays/README").write_text("x")
    (device / BOOT / "b").mkdir()
    (device / BOOT / "b/left.over").touch()
    update.put_slot_files(new, device / BOOT, "b")
    assert sorted(path.name for path in (device / BOOT / "b").rglob("*") if path.is_file()) == [
        "README", "cmdline.txt", "slot.txt", "vmlinuz",
    ]  # fmt: skip
    assert (device / BOOT / "b/cmdline.txt").read_text() == "root=PARTUUID=a9d10001-03 boot=apmpi\n"
    assert (device / BOOT / "b/slot.txt").read_bytes() == slots.text("b")
