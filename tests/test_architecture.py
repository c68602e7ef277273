"""Who may see whom: imports go one way, so that each room can be read, tested and replaced alone."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# module of apmpi -> the modules of apmpi that it may import. A new module needs a line here.
PYTHON = {
    "frame": set(),
    "text_file": set(),
    "config": {"text_file"},
    "apm": {"frame", "_native"},
    "alsa": set(),
    "pcm": {"alsa", "frame", "config", "clock"},
    "wav": {"frame", "config", "replace", "text_file"},
    "clock": {"frame", "config"},
    "latency": {"frame", "config"},
    "replace": set(),
    "bounded_json": set(),
    "sound_mark": set(),
    "downmix": set(),
    "learned": {"bounded_json", "clock", "config", "replace"},
    "realtime": set(),
    "journal": set(),
    "progress": set(),
    "process": {"apm", "clock", "config", "frame", "progress", "text_file", "wav"},
    "protocol": set(),
    "feed": set(),
    "report": {"latency", "config", "journal", "realtime", "sound_mark"},
    "metrics": {"report"},
    "socket_server": {"bounded_json", "protocol", "feed", "config", "realtime", "report", "metrics"},
    "socket_client": {"bounded_json", "protocol", "config"},
    "acoustics": set(),
    "endpoint_check": {"config", "pcm", "wav"},
    "doctor": {"acoustics", "apm", "clock", "config", "endpoint_check", "latency", "loop", "pcm"}
    | {"realtime", "report", "text_file"},
    "monitor": {"socket_client", "protocol", "config"},
    "record": {"socket_client", "protocol", "config", "wav", "replace", "text_file"},
    "picture": set(),
    "page": {"bounded_json", "record", "replace", "socket_client", "protocol", "picture", "config", "wav"}
    | {"text_file"},
    "endpoints": {"config", "pcm", "wav", "clock", "realtime"},
    "loop": {"frame", "config", "pcm", "wav", "clock", "endpoints", "latency"}
    | {"learned", "realtime", "journal", "report", "apm"}
    | {"protocol", "feed", "socket_server", "sound_mark", "downmix"},
    "media_devices": {"frame", "config", "apm", "pcm", "clock", "endpoints"},
}
# These stand above all others: the command line, the demonstration, and the package's public face.
PYTHON_TOP = {"cli", "demo", "__init__", "__main__"}

STAGES = {"hpf", "delay", "aec", "ns", "gain", "agc", "limiter"}
# folder of native -> the folders beside itself whose headers it may include
NATIVE = {
    "kernels": set(),
    **{stage: {"kernels"} for stage in STAGES},
    "apm": {"kernels"} | STAGES,
    "cython": {"kernels", "apm"} | STAGES,
    "training": {"kernels", "apm"} | STAGES,
    "room": {"kernels"},
}


def imports_of(path: Path) -> set[str]:
    """Modules of apmpi that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, ["apmpi" if node.level else "", node.module]))
            # `from apmpi import pcm` may name modules or objects: only files beside this one are modules.
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "apmpi" else [base]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("apmpi.")}
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "apmpi").glob("*.py")), ids=lambda path: path.stem)
def test_python_modules_import_only_what_stands_below_them(path: Path) -> None:
    if path.stem in PYTHON_TOP:
        return
    assert path.stem in PYTHON, f"{path.name} has no place in the table of this test"
    assert imports_of(path) <= PYTHON[path.stem]


def test_nothing_imports_the_tests() -> None:
    for path in (ROOT / "apmpi").glob("*.py"):
        assert not re.search(r"^\s*(from|import) tests\b", path.read_text(), re.MULTILINE), path


NATIVE_FILES = sorted(path for path in (ROOT / "native").rglob("*.*") if path.suffix in {".c", ".h", ".pyx"})


@pytest.mark.parametrize("path", NATIVE_FILES, ids=lambda path: str(path.relative_to(ROOT / "native")))
def test_native_rooms_include_only_what_stands_below_them(path: Path) -> None:
    native = ROOT / "native"
    room = path.relative_to(native).parts[0]
    assert room in NATIVE, f"native/{room} has no place in the table of this test"
    pattern = r'^\s*#\s*include\s*"([^"]+)"|^\s*cdef extern from "([^"]+)"'
    for match in re.finditer(pattern, path.read_text(), re.MULTILINE):
        name = match[1] or match[2]
        header = next((folder / name for folder in (path.parent, native) if (folder / name).exists()), None)
        if header is None and path.suffix == ".pyx":
            continue  # a system header: Cython writes those alike
        assert header is not None, f'"{name}" is neither beside {path.name} nor in native'
        seen = header.resolve().relative_to(native).parts[0]
        assert seen in NATIVE[room] | {room}, f"native/{room} may not see {name}"
