"""Calls without the lock read nothing that changes, by the thread sanitizer."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = [
    path
    for path in sorted((ROOT / "native").glob("*/*.c"))
    if path.parent.name not in {"cards", "pipewire", "roomcard", "training"}
]


def test_a_state_is_sized_while_sound_goes_through(tmp_path: Path) -> None:
    sources = [path for path in CORE if not path.name.startswith("test_")]
    flags = ["-std=gnu11", "-O1", "-g", "-fsanitize=thread", f"-I{ROOT / 'native'}"]
    program = tmp_path / "threads"
    threads = ROOT / "tests" / "native" / "threads.c"
    subprocess.run(["clang", *flags, threads, *sources, "-lm", "-lpthread", "-o", program], check=True)
    # Without randomised addresses: with many random bits the sanitizer finds no space for its own memory.
    done = subprocess.run(["setarch", "-R", program], capture_output=True, text=True, timeout=300)
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-8000:]
    assert "states saved" in done.stdout
