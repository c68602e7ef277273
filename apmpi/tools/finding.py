"""One result of `apmpi doctor`."""

from dataclasses import dataclass

FINE, NOTE, WRONG = "fine", "note", "WRONG"


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    verdict   FINE, NOTE (worth knowing, no fault) or WRONG
    text      what was found
    todo      the one thing to do about it, if any
    """

    name: str
    verdict: str
    text: str
    todo: str = ""


def judged(name: str, wrong: bool, text: str, todo: str) -> Finding:
    """Return a finding that is WRONG with `todo` if `wrong`, else FINE."""
    return Finding(name, WRONG, text, todo) if wrong else Finding(name, FINE, text)
