"""The checks of `apmpi doctor` that the page can do: the board and the service's last day.

Devices, rights and sound are not among them: the page's service sees no device and has no rights, and the
sound takes the cards, which the service uses.
"""

from pathlib import Path

from apmpi.tools.journal_checks import journal_findings
from apmpi.tools.machine_checks import board_findings


def checks(now_s: float) -> dict[str, object]:
    """Return {"findings": [[verdict, name, text, what to do], ...]}, the content of JSON."""
    found = [*board_findings(Path("/")), *journal_findings(now_s)]
    return {"findings": [[finding.verdict, finding.name, finding.text, finding.todo] for finding in found]}
