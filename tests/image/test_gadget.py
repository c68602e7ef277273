"""The USB sound card's set-up, against a tree like configfs and sysfs."""

from __future__ import annotations

from pathlib import Path

from apmpi_appliance import gadget


def test_the_function_is_complete_before_a_pc_sees_it(tmp_path: Path) -> None:
    (tmp_path / "sys/class/udc/3f980000.usb").mkdir(parents=True)
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/serial-number").write_text("10000000abcdef01\0")
    assert gadget.set_up(tmp_path) == "a sound card at 3f980000.usb"
    made = tmp_path / "sys/kernel/config/usb_gadget/apmpi"
    values = {
        path.relative_to(made).as_posix(): path.read_text() for path in made.rglob("*") if path.is_file()
    }
    assert values["UDC"] == "3f980000.usb"
    assert values["strings/0x409/serialnumber"] == "10000000abcdef01"
    for direction in "cp":
        function = f"functions/uac2.usb0/{direction}"
        assert (values[f"{function}_srate"], values[f"{function}_ssize"], values[f"{function}_chmask"]) == (
            "48000",
            "2",
            "1",
        )
    link = made / "configs/c.1/uac2.usb0"
    assert link.is_symlink() and link.resolve() == (made / "functions/uac2.usb0").resolve()
    # Binding to the port is the last step.
    newest = max(
        (path for path in made.rglob("*") if path.is_file()), key=lambda path: path.stat().st_mtime_ns
    )
    assert newest.name == "UDC"


def test_again_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "sys/class/udc/fe980000.usb").mkdir(parents=True)
    gadget.set_up(tmp_path)
    assert gadget.set_up(tmp_path) == "already a sound card at fe980000.usb"


def test_a_board_without_the_port(tmp_path: Path) -> None:
    assert gadget.set_up(tmp_path) == "no USB device port"
    assert not (tmp_path / "sys/kernel").exists()
