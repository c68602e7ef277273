"""Formatting, lint, types, compiler warnings and the form of docstrings."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PYTHON_CODE = ["apmpi", "tests", "native", "image", "packaging", ".ci"]
# Built with libraries that set-up does not install: another library's transform, qemu's plugins.
UNCOMMON = {"transforms.c", "insncount.c", "threadcount.c"}
# Includes of our own, then PipeWire's, whose warnings are not ours.
INCLUDES = [f"-I{ROOT / 'native'}", "-isystem", "/usr/include/spa-0.2"]


def check(*command: str | Path, cwd: Path = ROOT, **environment: str) -> None:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.fail(done.stdout, pytrace=False)


def test_formatting() -> None:
    check(sys.executable, "-m", "ruff", "format", "--diff", *PYTHON_CODE)


def test_formatting_of_c() -> None:
    sources = [path for folder in ("native", "tests") for path in sorted((ROOT / folder).rglob("*.[ch]"))]
    written_by_a_program = {"weights.h"}
    command = [Path(sys.executable).with_name("clang-format"), "--dry-run", "--Werror"]
    check(*command, *(path for path in sources if path.name not in written_by_a_program))


def test_lint() -> None:
    check(sys.executable, "-m", "ruff", "check", *PYTHON_CODE)


def test_types() -> None:
    check(sys.executable, "-m", "mypy", "--strict", "apmpi", "tests/examples")


def test_types_of_the_image() -> None:
    # The code that runs on the device, and the one that builds and tests the image: outside the package.
    code = sorted((ROOT / "image").glob("*.py"))
    check(sys.executable, "-m", "mypy", "--strict", *code, "apmpi_appliance", cwd=ROOT / "image")


def test_types_of_the_packaging() -> None:
    code = sorted((ROOT / "packaging").glob("*.py"))
    # Its tests use those of the project.
    options = ("--strict", "--follow-imports=silent")
    check(sys.executable, "-m", "mypy", *options, *code, cwd=ROOT / "packaging", MYPYPATH=str(ROOT / "tests"))


def test_stubs_say_what_the_compiled_module_has(tmp_path: Path) -> None:
    # Names that the stubs leave out are private. From another folder: the installed package is compared.
    settings = ("--mypy-config-file", ROOT / "pyproject.toml", "--ignore-missing-stub")
    check(sys.executable, "-m", "mypy.stubtest", *settings, "apmpi._native", "apmpi._cards", cwd=tmp_path)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_no_compiler_warning(compiler: str, tmp_path: Path) -> None:
    # Optimised, because the warnings that follow values through a function need it. Objects land in tmp_path.
    sources = [*(ROOT / "native").rglob("*.c"), *(ROOT / "tests").rglob("*.c")]
    warnings = ["-Wall", "-Wextra", "-Wdouble-promotion", "-Werror", "-Werror=implicit-function-declaration"]
    check(
        compiler,
        "-std=gnu11",
        "-O2",
        "-fPIC",
        *warnings,
        *INCLUDES,
        "-c",
        *sorted(path for path in sources if path.name not in UNCOMMON),
        cwd=tmp_path,
    )


def test_static_analysis(tmp_path: Path) -> None:
    # native/.clang-tidy lists the checks, with the reasons for those left out.
    sources = sorted(path for path in (ROOT / "native").rglob("*.c") if not path.name.startswith("test_"))
    tidy = [Path(sys.executable).with_name("clang-tidy"), "--quiet", "--warnings-as-errors=*"]
    check(*tidy, *sources, "--", "-std=gnu11", *INCLUDES)


def test_docstrings_name_what_a_thing_is() -> None:
    # A verb or a noun phrase that names the result, not a clause without a head.
    clause = re.compile(r"(What|Who|How|When|Where|Whether|Whoever|Nobody)\b")
    headless = [
        f"{path.relative_to(ROOT)}: {text.splitlines()[0]}"
        for folder in ("apmpi", "tests", "image", "native", "packaging", ".ci")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(), str(path)))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and clause.match(text := ast.get_docstring(node) or "")
    ]
    assert not headless, "\n".join(headless)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shell_scripts() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    scripts = [name for name in tracked if is_shell(ROOT / name)]
    print(*scripts)
    assert ".ci/setup" in scripts
    check("shellcheck", "--severity=style", "--exclude=SC1091", *scripts)


def is_shell(path: Path) -> bool:
    with path.open("rb") as file:
        first = file.readline()
    return first.startswith((b"#!/bin/sh", b"#!/usr/bin/env bash", b"#!/bin/bash"))


def test_hooks_run_every_linter() -> None:
    """Every other test of this file has a hook of its name, and no hook downloads anything."""
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local" and {hook["language"] for hook in local["hooks"]} == {"system"}
    linters = set(re.findall(r"^def (test_\w+)", Path(__file__).read_text(), re.MULTILINE))
    assert {hook["id"] for hook in local["hooks"]} == linters - {"test_hooks_run_every_linter"}
