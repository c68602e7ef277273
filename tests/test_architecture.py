"""Allowed imports: they go one way, so that each room can be read, tested and replaced alone."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What any module of apmpi may import: facts.
FACTS = {"errors", "settings", "units", "_version"}
# Folder or module of apmpi -> those beside it that it may import, too.
PYTHON = {
    "__init__": {"api", "moved"},
    "tools": {"service", "api", "cards", "figures"},
    "service": {"api", "cards", "figures"},
    "agents": {"api", "cards"},
    "api": {"cards", "_native"},
    "cards": {"_cards"},
    "figures": set(),
    "moved": set(),
    **{fact: set() for fact in FACTS},
}

STAGES = {"hpf", "delay", "aec", "array", "ns", "mask", "agc", "limiter"}
# folder of native -> the folders beside itself whose headers it may include
NATIVE = {
    "base": set(),
    "kernels": {"base"},
    **{stage: {"base", "kernels"} for stage in STAGES},
    "apm": {"base", "kernels"} | STAGES,
    "cards": {"base", "kernels"},
    "cython": {"base", "kernels", "apm", "cards"} | STAGES,
    "training": {"base", "kernels", "apm"} | STAGES,
    "roomcard": {"base", "kernels"},
    "pipewire": {"base", "apm"},
}


def imports_of(path: Path) -> set[str]:
    """Modules of apmpi that a file imports anywhere in it, as paths below apmpi."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            # `from apmpi import settings` may name modules or objects.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.removeprefix("apmpi.") for name in names if name.startswith("apmpi.")}
    return found


PYTHON_FILES = sorted((ROOT / "apmpi").rglob("*.py"))


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: str(path.relative_to(ROOT / "apmpi")))
def test_python_wings_import_only_what_stands_below_them(path: Path) -> None:
    place = path.relative_to(ROOT / "apmpi").with_suffix("").parts[0]
    assert place in PYTHON, f"apmpi/{place} has no place in the table of this test"
    names = {name.split(".")[0] for name in imports_of(path)}
    public = {name for name in names if name[0].isupper()}  # the package's own public names
    assert names - public <= PYTHON[place] | FACTS | {place}


def test_python_modules_import_each_other_in_no_circle() -> None:
    modules = {".".join(p.relative_to(ROOT / "apmpi").with_suffix("").parts): p for p in PYTHON_FILES}
    below = {
        name: {m for m in modules if any(i == m or i.startswith(f"{m}.") for i in imports_of(path))}
        for name, path in modules.items()
        if name != "__init__"  # binds its names when they are first used
    }
    order = TopologicalSorter(below)
    order.prepare()  # raises CycleError with the modules of a circle


def test_nothing_imports_the_tests() -> None:
    for path in PYTHON_FILES:
        assert not re.search(r"^\s*(from|import) tests\b", path.read_text(), re.MULTILINE), path


def test_the_service_runs_without_systemd_python() -> None:
    """It may be absent, and it holds the interpreter while it sends: it is imported to read alone."""
    pattern = re.compile(r"^\s*(from|import) systemd\b", re.MULTILINE)
    users = {path.relative_to(ROOT / "apmpi") for path in PYTHON_FILES if pattern.search(path.read_text())}
    assert users == {Path("service/history.py")}
    importers = {
        path.stem
        for path in PYTHON_FILES
        if any(name.startswith("service.history") for name in imports_of(path))
    }
    assert importers == {"log", "journal_checks", "spans", "past"}


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


def test_every_function_fits_on_a_screen() -> None:
    """At most 60 lines each in the package, the image and the packaging; clang-tidy checks the C."""
    for folder in ("apmpi", "image", "packaging"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(), str(path))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    assert node.end_lineno is not None
                    lines = node.end_lineno - node.lineno + 1
                    assert lines <= 60, f"{path.relative_to(ROOT)}: {node.name} has {lines} lines"
