"""A bare Debian with a real systemd as PID 1, in which deb_scenario.sh installs and purges the package.

    deb_namespace.py boot FOLDER     outside: cgroup and namespaces of its own, removed afterwards
    deb_namespace.py init FOLDER     inside, PID 1: an overlay on FOLDER/root, then systemd

FOLDER has the files of the bare root in root/, of the scenario in given/, and gets the results in given/.
"""

import shutil
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from booted_root import boot, enter, make_root, run
from roots import CACHE, CERTIFICATES

SCENARIO = Path(__file__).with_name("deb_scenario.sh")
TIMEOUT_S = 560


def init(folder: Path) -> None:
    given = folder / "given"
    root = make_root(given, lower=folder / "root")
    # Packages that were downloaded once are kept, as by .ci/fresh.py.
    archives = CACHE / f"apt-{(given / 'release').read_text()}"
    archives.mkdir(parents=True, exist_ok=True)
    run("mount", "--bind", archives, root / "var/cache/apt/archives")
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    shutil.copy(Path("/etc/resolv.conf").resolve(), root / "etc/resolv.conf")
    if CERTIFICATES.exists():
        (root / CERTIFICATES.relative_to("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
    shutil.copy(SCENARIO, root / "usr/local/bin/scenario")
    (root / "etc/systemd/system/drive.service").write_text(
        "[Unit]\nDefaultDependencies=no\nRequires=systemd-journald.service\nAfter=systemd-journald.service\n"
        f"[Service]\nType=oneshot\nExecStart=bash /usr/local/bin/scenario\nTimeoutStartSec={TIMEOUT_S}s\n"
        "StandardOutput=file:/test/log\nStandardError=inherit\n"
        "ExecStopPost=systemctl poweroff --force\n"
    )
    enter(root)


if __name__ == "__main__":
    step, where = sys.argv[1], Path(sys.argv[2])
    if step == "boot":
        boot(__file__, where, seconds=TIMEOUT_S + 20)
    else:
        init(where)
