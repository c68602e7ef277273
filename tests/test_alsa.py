"""Queries of ALSA's library before a device is opened."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from apmpi.cards import alsa

APMPI = Path(sys.executable).with_name("apmpi")


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """File that a command would leave behind."""
    return tmp_path / "it-was-run"


def disguises(command: str) -> dict[str, str]:
    return {
        "file": f"file:'{command}',raw",
        "file by its argument's name": f"file:FILE='{command}'",
        "tee": f"tee:null,'{command}',raw",
        "tee in braces": f"tee:{{SLAVE null FILE '{command}' FORMAT raw}}",
        "behind plug": f"plug:\"file:'{command}',raw\"",
        "behind plug by its argument's name": f"plug:SLAVE=\"tee:null,'{command}',raw\"",
        "defined": "inline",
        "an alias": "alias",
        "several definitions further": "chain",
    }


def define(path: Path, command: str) -> None:
    path.write_text(f"""
pcm.inline {{ type plug slave.pcm {{ type file slave.pcm null file "{command}" format raw }} }}
pcm.alias "inline"
pcm.chain {{ type plug slave "one" }}
pcm_slave.one {{ pcm "two" }}
pcm.two {{ type asym capture.pcm null playback.pcm "three" }}
pcm.three {{ type multi slaves.a.pcm "inline" slaves.a.channels 1 bindings.0.slave a bindings.0.channel 0 }}
pcm.endless {{ @args [ A ] @args.A {{ type string default "" }}
    type plug slave.pcm {{ @func concat strings [ "endless:" $A "a" ] }} }}
pcm.itself {{ type plug slave.pcm "itself" }}
pcm.honest {{ type file slave.pcm null file "/tmp/sound.raw" format raw }}
""")


@pytest.mark.parametrize("case", disguises(""))
def test_a_device_that_runs_a_command_is_refused_before_it_does(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    command = f"touch {marker}"
    define(tmp_path / "asound.conf", f"|{command}")
    monkeypatch.setenv("ALSA_CONFIG_PATH", f"/usr/share/alsa/alsa.conf:{tmp_path / 'asound.conf'}")
    device = disguises(f"|{command}")[case]
    (tmp_path / "apmpi.yaml").write_text(
        "microphone: {device: 'null'}\noutput:\n  device: '" + device.replace("'", "''") + "'\n"
    )
    assert alsa.command_of(device) == command
    for arguments in (
        ("check", "apmpi.yaml"),
        ("run", "--config", "apmpi.yaml", "--seconds", "1"),
        ("doctor", "--device", device, "--no-sound"),
    ):
        done = subprocess.run(
            [APMPI, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        print(done.stdout, done.stderr)
        assert done.returncode != 0
        assert f"it runs the command '{command}', expected a device that runs none" in (
            done.stderr + done.stdout
        )
        assert "Traceback" not in done.stderr
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", ["null", "hw:0", "plughw:CARD=Device,DEV=0", "honest", "nonsense", "itself", "", "{"]
)
def test_other_devices_run_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    define(tmp_path / "asound.conf", "|true")
    monkeypatch.setenv("ALSA_CONFIG_PATH", f"/usr/share/alsa/alsa.conf:{tmp_path / 'asound.conf'}")
    assert alsa.command_of(name) is None


def test_a_definition_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    define(tmp_path / "asound.conf", "|true")
    monkeypatch.setenv("ALSA_CONFIG_PATH", f"/usr/share/alsa/alsa.conf:{tmp_path / 'asound.conf'}")
    with pytest.raises(alsa.AlsaError) as caught:
        alsa.command_of("endless")
    assert caught.value.errno == errno.ELOOP
