"""A real journald in a mount namespace of its own: `journald_namespace.py reload|hang|wait COMMAND...`

Starts journald on an empty /run, then COMMAND (the daemon, or a script that runs it) with its standard error
in the journal, as systemd would start it, runs the scenario, and prints the daemon's entries as JSON lines.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

JOURNAL = Path("/run/systemd/journal")
# A scenario takes 15 s at most on a quiet machine.
SECONDS_MAX = 120


def reason() -> str:
    """Return why journald can't be run here, or an empty text."""
    for program in ("/lib/systemd/systemd-journald", "journalctl", "unshare"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
        return "mount namespaces are not permitted here"
    return ""


needs_journald = pytest.mark.skipif(bool(reason()), reason=reason())


def journal_of(scenario: str, *command: str | Path) -> list[dict[str, str]]:
    """Return the entries of apmpi, in order, after that command."""
    namespace = ["unshare", "-m", "--propagation", "private", sys.executable, __file__, scenario, *command]
    done = subprocess.run(namespace, capture_output=True, text=True, timeout=SECONDS_MAX)
    assert done.returncode == 0, done.stderr
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    for entry in entries:
        print(entry.get("PRIORITY"), entry.get("MESSAGE"))
    return entries


def in_journal(folder: Path, *commands: str) -> dict[str, tuple[int, str, str]]:
    """Run commands in a namespace with a journal, which takes the standard error of those that begin with !.

    Return status, output and errors of the others by their text.
    """
    lines = []
    for number, command in enumerate(commands):
        if command.startswith("!"):
            lines.append(f"{command[1:]} || exit 9\njournalctl --sync")
        else:
            lines.append(f"{command} >{number}.out 2>{number}.err; echo $? >{number}.status")
    (folder / "script").write_text(f"cd {shlex.quote(str(folder))}\n" + "\n".join(lines))
    journal_of("wait", "bash", folder / "script")
    results = {}
    for number, command in enumerate(commands):
        if not command.startswith("!"):
            status, out, errors = (
                (folder / f"{number}.{end}").read_text() for end in ("status", "out", "err")
            )
            print(f"$ {command}\n{out}{errors}")
            results[command] = int(status), out, errors
    return results


def reload(daemon: subprocess.Popen[bytes], journald: subprocess.Popen[bytes]) -> None:
    time.sleep(2)
    daemon.send_signal(signal.SIGHUP)


def hang(daemon: subprocess.Popen[bytes], journald: subprocess.Popen[bytes]) -> None:
    """Stop journald for 3 s, with its queue filled completely."""
    time.sleep(1)
    journald.send_signal(signal.SIGSTOP)
    with contextlib.ExitStack() as stack:
        # One sender may be stopped by its own buffer: repeat until a new one finds no space.
        sent = True
        while sent:
            sent = False
            shouter = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            stack.enter_context(shouter)
            with contextlib.suppress(BlockingIOError):
                while True:
                    shouter.sendto(b"MESSAGE=me too", str(JOURNAL / "socket"))
                    sent = True
    time.sleep(3)
    journald.send_signal(signal.SIGCONT)


def wait(daemon: subprocess.Popen[bytes], journald: subprocess.Popen[bytes]) -> None:
    """Leave it alone."""


def main(scenario: str, *command: str) -> int:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    Path("/run/log/journal").mkdir(parents=True)
    JOURNAL.mkdir(parents=True)
    journald = subprocess.Popen(["/lib/systemd/systemd-journald"], stderr=subprocess.DEVNULL)
    while not (JOURNAL / "stdout").exists():
        time.sleep(0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.connect(str(JOURNAL / "stdout"))
        # Identifier, unit, priority, whether "<N>" at a line's beginning is one, and nothing to be forwarded.
        stream.sendall(b"apmpi\n\n6\n1\n0\n0\n0\n")
        status = os.fstat(stream.fileno())
        environment = {**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        daemon = subprocess.Popen(command, stderr=stream, env=environment)
    {"reload": reload, "hang": hang, "wait": wait}[scenario](daemon, journald)
    code = daemon.wait(SECONDS_MAX)
    time.sleep(0.5)
    journald.terminate()
    journald.wait(10)
    entries = ["journalctl", "-D", "/run/log/journal", "-o", "json", "--no-pager", "-t", "apmpi"]
    subprocess.run(entries, check=True)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
