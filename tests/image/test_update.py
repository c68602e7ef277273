"""Choice of the version to start, and checks of an update, with a tree of files and real signatures."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from apmpi_appliance import apart, fetch, fetched, slots, update
from apmpi_appliance.places import BOOT

import build


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A device that runs version a; the key of its updates is in `key`."""
    root = tmp_path / "root"
    for folder in (f"{BOOT}/a", "proc", "usr/share/apmpi", "run/apmpi-start", "data"):
        (root / folder).mkdir(parents=True)
    (root / "proc/cmdline").write_text("root=PARTUUID=a9d10001-02 boot=apmpi quiet\n")
    (root / slots.VERSION).write_text("1.0\n")
    (root / slots.BOARD).write_text("pi3-pi4\n")
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


def test_the_signature_is_parsed_without_privileges(
    device: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("not root: there is nothing to give up")
    programs = tmp_path / "bin"
    programs.mkdir()
    # The real program, behind a script that records its callers.
    noted = tmp_path / "noted"
    noted.touch()
    noted.chmod(0o666)
    script = programs / "ssh-keygen"
    script.write_text(f'#!/bin/sh\nid -u > {noted}\nexec {shutil.which("ssh-keygen")} "$@"\n')
    script.chmod(0o755)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o055)
    file = signed(device, CONTENT)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    update.verify(file, device)
    assert noted.read_text().strip() == str(apart.NOBODY)


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
    """The initramfs's own lines: sed finds the old version, dd writes its sector."""
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
    assert "version 2.0 did not get as far as sound" in slots.report(device)
    assert "version 2.0 did not" in (device / BOOT / slots.REPORT_NAME).read_text()
    assert slots.report(device) == "no update was tried"
    assert slots.confirm(device) == "version 1.0 as before"
    assert (device / BOOT / slots.NAME).read_bytes() == slots.text("a")


def test_a_version_on_trial_says_nothing_of_itself(device: Path) -> None:
    (device / slots.TRIED).parent.mkdir(parents=True)
    (device / slots.TRIED).write_text("2.0")
    (device / slots.TRIAL_MARK).touch()
    assert slots.report(device) == "no update was tried"
    assert (device / slots.TRIED).exists()


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


# ---- updates refused before anything is written, with a real file system and a real mount

needs_squashfs = pytest.mark.skipif(
    shutil.which("mksquashfs") is None or os.geteuid() != 0,
    reason="squashfs-tools is not installed, or not root: nothing can be mounted",
)
PARTITION_BYTES = 1 << 20


def described(
    device: Path, version: str = "2.0", board: str = "pi3-pi4", kernel_bytes: int = 100_000
) -> Path:
    """A signed update, made by the build's own function."""
    new = device / "new"
    shutil.rmtree(new, ignore_errors=True)
    (new / update.SLOT_FILES / "overlays").mkdir(parents=True)
    (new / "usr/share/apmpi").mkdir(parents=True)
    (new / "usr/share/apmpi/cmdline.txt").write_text("boot=apmpi\n")
    (new / slots.VERSION).write_text(f"{version}\n")
    (new / slots.BOARD).write_text(f"{board}\n")
    (new / update.SLOT_FILES / "vmlinuz").write_bytes(b"k" * kernel_bytes)
    (new / update.SLOT_FILES / "overlays/README").write_text("x")
    squashfs = device / "new.squashfs"
    command = ["mksquashfs", new, squashfs, "-noappend", "-quiet", "-no-progress"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    file = device / "apmpi.update"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("APMPI_SIGNING_KEY", str(device / "key"))
        build.write_update(new, squashfs, file)
    return file


@pytest.fixture
def card(device: Path) -> Path:
    """The device with a second partition that holds an older version, which can be started."""
    partition = device / "dev/disk/by-partuuid" / slots.ROOT_PARTITION["b"]
    partition.parent.mkdir(parents=True)
    partition.write_bytes(b"old".ljust(PARTITION_BYTES, b"\0"))
    (device / BOOT / "b").mkdir()
    (device / BOOT / "b/vmlinuz").write_bytes(b"old kernel")
    return device


def queue(device: Path, file: Path) -> None:
    shutil.copy(file, device / BOOT / update.NAME)


def everything(device: Path) -> dict[str, bytes]:
    """Return all of the card's content but the update and the report."""
    names = (update.NAME, "apmpi.refused", slots.REPORT_NAME)
    files = [*(device / BOOT).rglob("*"), *(device / "dev").rglob("*")]
    return {
        str(path.relative_to(device)): path.read_bytes()
        for path in files
        if path.is_file() and path.name not in names
    }


def report(device: Path) -> str:
    return (device / BOOT / slots.REPORT_NAME).read_text()


@needs_squashfs
def test_an_update_is_written_and_tried_once(card: Path) -> None:
    queue(card, described(card))
    assert update.main(None, card)
    assert (card / BOOT / slots.NAME).read_bytes() == slots.text("b", after="a")
    assert (card / BOOT / "b/vmlinuz").read_bytes() == b"k" * 100_000
    assert (card / slots.TRIED).read_text() == "2.0"
    assert sorted(path.name for path in (card / BOOT).iterdir()) == ["a", "b", "slot.txt", "update.txt"]


@needs_squashfs
def test_an_update_that_was_fetched_is_installed_as_any_other(card: Path) -> None:
    for folder in (fetch.FOLDER, "data/fetched"):
        (card / folder).mkdir(parents=True)
    described(card).rename(card / fetch.FOLDER / update.NAME)
    assert fetched.main(card)
    assert (card / BOOT / slots.NAME).read_bytes() == slots.text("b", after="a")
    assert (card / slots.TRIED).read_text() == "2.0"
    assert not list((card / "data").glob("fetch*/*"))


@needs_squashfs
@pytest.mark.parametrize(
    ("version", "board", "problem"),
    [
        ("0.9.9", "pi3-pi4", "version 0.9.9 given, expected 1.0 or newer"),
        ("0.10", "pi3-pi4", "version 0.10 given, expected 1.0 or newer"),
        ("2.0", "pi5", "for pi5 given, expected an update for pi3-pi4"),
        ("2.0-rc1", "pi3-pi4", "version 2.0-rc1 given, expected numbers with dots"),
    ],
)
def test_an_older_version_and_another_board_are_refused(
    card: Path, version: str, board: str, problem: str
) -> None:
    queue(card, described(card, version, board))
    before = everything(card)
    assert not update.main(None, card)
    assert problem in report(card)
    assert everything(card) == before
    assert not (card / BOOT / update.NAME).exists()


@needs_squashfs
@pytest.mark.parametrize("version", ["1", "1.0", "1.0.0", "1.0.1", "1.10", "10.0"])
def test_the_same_version_and_newer_ones_are_taken(card: Path, version: str) -> None:
    assert update.install(described(card, version), card) == version


def test_an_update_that_does_not_say_its_version_is_refused(card: Path) -> None:
    queue(card, signed(card, CONTENT))
    before = everything(card)
    assert not update.main(None, card)
    assert "made before updates named their version" in report(card)
    assert everything(card) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"boot_bytes 7", b"boot_bytes -7"),
        lambda text: text.replace(b"pi3-pi4", b"../../etc"),
        lambda text: text.replace(b"version 2.0", b"version " + b"9" * 100),
        lambda text: text[:20],
        lambda text: b"\0" * len(text),
        lambda text: text + b"x",
    ],
)
def test_a_description_is_that_or_nothing(change: Callable[[bytes], bytes]) -> None:
    description = update.Description("2.0", "pi3-pi4", 7, 3)
    assert update.Description.parse(description.content()) == description
    assert update.Description.parse(change(description.content())) is None


@needs_squashfs
def test_an_update_larger_than_its_partition_is_refused(card: Path) -> None:
    partition = card / "dev/disk/by-partuuid" / slots.ROOT_PARTITION["b"]
    os.truncate(partition, 4096)
    queue(card, described(card))
    before = everything(card)
    assert not update.main(None, card)
    assert "expected at most 0.0 MiB, all that the card has" in report(card)
    assert everything(card) == before


@contextlib.contextmanager
def boot_partition(card: Path, size_kib: int) -> Iterator[Path]:
    """A boot partition of the given size, mounted, with the earlier content."""
    boot, saved = card / BOOT, card / "saved"
    shutil.copytree(boot, saved)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}K", "apmpi-test", boot]
    subprocess.run(command, check=True)
    try:
        shutil.copytree(saved, boot, dirs_exist_ok=True)
        yield boot
    finally:
        subprocess.run(["umount", boot], check=True)


@needs_squashfs
@pytest.mark.parametrize("free_kib", [0, 4, 400, 560])
def test_an_update_that_does_not_fit_is_refused_before_anything_is_written(card: Path, free_kib: int) -> None:
    """600 KiB for the kernel, and less than that on the boot partition."""
    file = described(card, kernel_bytes=600 * 1024)
    with boot_partition(card, 2000) as boot:
        queue(card, file)
        taken_kib = (os.statvfs(boot).f_blocks - os.statvfs(boot).f_bfree) * 4
        (boot / "holiday.jpg").write_bytes(b"x" * 1024 * (2000 - taken_kib - free_kib))
        before = everything(card)
        assert not update.main(None, card)
        assert everything(card) == before
        assert (boot / "apmpi.refused").exists() and not (boot / update.NAME).exists()
        if free_kib:  # else there is no room for the report
            assert "of the boot partition beside itself" in report(card)


@needs_squashfs
def test_an_update_that_just_fits_is_installed(card: Path) -> None:
    """An update that _check_fits accepts is written whole; the old version's space counts as free."""
    file = described(card, kernel_bytes=600 * 1024)
    (card / BOOT / "b/vmlinuz").write_bytes(b"old" * 150_000)
    with boot_partition(card, 2000) as boot:
        queue(card, file)
        (boot / "holiday.jpg").touch()
        refused = 0
        while True:  # space is freed, one cluster after the other
            free_kib = os.statvfs(boot).f_bavail * 4
            filler = max(0, free_kib - 4 * refused - 120)
            (boot / "holiday.jpg").write_bytes(b"x" * 1024 * filler)
            try:
                assert update.install(boot / update.NAME, card) == "2.0"
            except update.UpdateError as error:
                assert "beside itself" in str(error)
                (boot / "holiday.jpg").write_bytes(b"")
                refused += 1
            else:
                break
        print(f"installed after {refused} refusals")
        assert refused > 0
        assert (boot / "b/vmlinuz").read_bytes() == b"k" * 600 * 1024


@needs_squashfs
@pytest.mark.parametrize("what", ["partition", "mount", "kernel"])
def test_after_a_failed_update_nobody_starts_half_a_version(
    card: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The card returns other bytes than were written to it, cannot be mounted, or keeps no kernel."""
    if what == "partition":

        def spoilt(*arguments: object) -> None:
            raise update.UpdateError("apmpi.update, as read back from the card: damaged")

        monkeypatch.setattr(update, "_write", spoilt)
    elif what == "mount":
        content = b"hsqs" + bytes(5000)
        queue(card, signed(card, content + update.Description("2.0", "pi3-pi4", 1, 1).content()))
    else:
        monkeypatch.setattr(update.filecmp, "cmp", lambda *files, shallow: False)
    if what != "mount":
        queue(card, described(card))
    assert not update.main(None, card)
    assert not (card / BOOT / "b").exists() and not (card / BOOT / "b.part").exists()
    assert (card / BOOT / slots.NAME).read_bytes() == slots.text("a")
    assert "Version 1.0 goes on, and is the only one on the card: b can't be started" in report(card)
    assert not (card / BOOT / update.NAME).exists()
    assert not (card / slots.TRIED).exists()


@needs_squashfs
def test_while_a_partition_is_written_its_version_can_not_be_started(
    card: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Power fails in the middle: the remaining files start the running version, and the update is tried
    again.
    """

    def power_cut(*arguments: object) -> None:
        raise KeyboardInterrupt

    queue(card, described(card))
    monkeypatch.setattr(update, "_write", power_cut)
    with pytest.raises(KeyboardInterrupt):
        update.main(None, card)
    assert not (card / BOOT / "b").exists()
    assert (card / BOOT / slots.NAME).read_bytes() == slots.text("a")
    monkeypatch.undo()
    assert update.main(None, card)
    assert (card / BOOT / "b/vmlinuz").exists()


def test_a_folder_in_place_of_an_update_is_refused_once(card: Path) -> None:
    (card / BOOT / update.NAME).mkdir()
    assert not update.main(None, card)
    assert "apmpi.update: is no file, expected" in report(card)
    assert not (card / BOOT / update.NAME).exists()


@needs_squashfs
def test_an_earlier_device_takes_an_update_of_today(card: Path, tmp_path: Path) -> None:
    """It verifies everything behind the header and mounts that as a squashfs, whatever follows it."""
    file = described(card)
    _, size = update.verify(file, card)
    partition = tmp_path / "partition"
    partition.write_bytes(file.read_bytes()[update.HEADER_BYTES :])
    assert partition.stat().st_size == size
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "squashfs", "-o", "ro", partition, mounted], check=True)
    try:
        assert slots.version(mounted) == "2.0"
        assert (mounted / update.SLOT_FILES / "vmlinuz").read_bytes() == b"k" * 100_000
    finally:
        subprocess.run(["umount", mounted], check=True)


# ---- the key


def test_one_key_for_all_images_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APMPI_SIGNING_KEY", raising=False)
    monkeypatch.setattr(build, "PROJECT", tmp_path)
    key = build.signing_key()
    made = key.read_bytes()
    assert key.parent == tmp_path and key.stat().st_mode & 0o077 == 0
    assert (build.signing_key(), key.read_bytes()) == (key, made)


def test_a_key_of_an_earlier_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APMPI_SIGNING_KEY", raising=False)
    monkeypatch.setattr(build, "PROJECT", tmp_path)
    folder = tmp_path / "build/image"
    folder.mkdir(parents=True)
    (folder / "signing-key").write_text("private")
    (folder / "signing-key.pub").write_text("public")
    assert build.signing_key().read_text() == "private"
    assert (tmp_path / "signing-key.pub").read_text() == "public"


def test_make_clean_deletes_no_key(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parents[2] / "Makefile", tmp_path)
    for folder, content in (("image", "1"), ("image-pi5", "2")):
        (tmp_path / "build" / folder).mkdir(parents=True)
        (tmp_path / "build" / folder / "signing-key").write_text(content)
        (tmp_path / "build" / folder / "signing-key.pub").write_text(content)
    for _ in range(2):
        command = ["make", "--no-print-directory", "-C", tmp_path, "clean"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    assert not (tmp_path / "build").exists()
    kept = {path.name: path.read_text() for path in tmp_path.glob("signing-key*")}
    assert kept == {
        **{"signing-key": "1", "signing-key.pub": "1"},
        **{"signing-key-image-pi5": "2", "signing-key-image-pi5.pub": "2"},
    }
