"""Device tree overlays compile, and fit the boards' device trees if those are available."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
OVERLAYS = sorted((PROJECT / "image/overlays").glob("*.dts"))
# From a build of the image, if one exists.
BOARDS = sorted((PROJECT / "build/image/boot/a").glob("*.dtb")) or [None]


@pytest.mark.skipif(shutil.which("dtc") is None, reason="device-tree-compiler is not installed")
@pytest.mark.parametrize("source", OVERLAYS, ids=lambda path: path.stem)
@pytest.mark.parametrize("board", BOARDS, ids=lambda path: path.stem if path else "no board")
def test_overlay(source: Path, board: Path | None, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.dtbo"
    subprocess.run(["dtc", "-@", "-I", "dts", "-O", "dtb", "-o", overlay, source], check=True)
    if board is not None and "bcm2712" not in board.name:  # a Pi 5 has another pin controller
        together = tmp_path / "together.dtb"
        subprocess.run(["fdtoverlay", "-i", board, "-o", together, overlay], check=True)
        said = subprocess.run(["fdtdump", together], capture_output=True, text=True, check=True).stdout
        assert "simple-audio-card" in said


def test_every_overlay_is_offered_in_config_txt() -> None:
    offered = (PROJECT / "image/boot/config.txt").read_text()
    assert OVERLAYS
    assert all(f"#dtoverlay=apmpi-{source.stem}\n" in offered for source in OVERLAYS)
