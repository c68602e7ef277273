"""SPDX licence expressions from Debian's copyright files.

Most of those are machine-readable (DEP 5, debian.org/doc/packaging-manuals/copyright-format/1.0):
paragraphs of files with the short name of a licence, and the texts of licences. Short names that mean the
same everywhere become SPDX identifiers; others, and files in free text, are named LicenseRef-... and given
in full.
"""

import re
from dataclasses import dataclass, field

FORMAT = re.compile(r"\s*Format(-Specification)?:\s*\S*(copyright-format|dep5)", re.IGNORECASE)
# Short names that both spell alike except for capitals, ...
SAME = (
    *("0BSD", "AFL-2.1", "Apache-2.0", "Beerware", "BSD-2-Clause", "BSD-3-Clause", "BSD-4-Clause", "BSL-1.0"),
    *(
        "CC0-1.0",
        "CC-BY-3.0",
        "CC-BY-4.0",
        "CC-BY-SA-3.0",
        "CC-BY-SA-4.0",
        "FSFAP",
        "FSFUL",
        "FSFULLR",
        "ISC",
    ),
    *("MPL-1.1", "MPL-2.0", "OFL-1.1", "Unicode-DFS-2016", "X11", "Zlib"),
)
# ... and those that SPDX spells differently, in small letters.
IDENTIFIERS = {name.lower(): name for name in SAME}
IDENTIFIERS |= {"apache-2": "Apache-2.0", "cc0": "CC0-1.0", "expat": "MIT"}
# GPL-2, GPL-2+, LGPL-2.1+, GFDL-NIV-1.3: the family, "no invariants", number, "or later".
GNU = re.compile(r"(AGPL|LGPL|GPL|GFDL)(-NIV)?-(\d)(\.\d)?(\+)?", re.IGNORECASE)


@dataclass
class Extracted:
    """Texts of licences without SPDX identifier, by their LicenseRef names."""

    texts: dict[str, str] = field(default_factory=dict)

    def named(self, name: str, text: str) -> str:
        """Return the name for `text`: `name`, with a number if another text has that name."""
        base = "LicenseRef-" + re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-")
        number, unique = 1, base
        while self.texts.setdefault(unique, text) != text:
            number += 1
            unique = f"{base}-{number}"
        return unique


def declared(source: str, copyright_text: str, extracted: Extracted) -> str:
    """Return the SPDX expression of a Debian source package; adds its texts to `extracted`."""
    if not FORMAT.match(copyright_text):
        return extracted.named(f"{source}-copyright", copyright_text)
    texts: dict[str, str] = {}
    used: dict[str, None] = {}  # in order, each once
    for paragraph in re.split(r"\n\s*\n", copyright_text):
        found = re.search(r"^License:[ \t]*(.*)((?:\n[ \t].*)*)", paragraph, re.MULTILINE)
        if found is None:
            continue
        name, text = found[1].strip(), _unfolded(found[2])
        if text:
            texts.setdefault(name.lower(), text)
        if re.search(r"^Files:", paragraph, re.MULTILINE) and name:
            used[name] = None
    if not used:
        return extracted.named(f"{source}-copyright", copyright_text)
    terms = []
    for name in used:
        term = _expression(source, name, texts, copyright_text, extracted)
        terms.append(f"({term})" if " OR " in term else term)
    return " AND ".join(dict.fromkeys(terms))


def _unfolded(text: str) -> str:
    lines = [line.strip() for line in text.splitlines()]
    return "\n".join("" if line == "." else line for line in lines).strip()


def _expression(
    source: str, name: str, texts: dict[str, str], copyright_text: str, extracted: Extracted
) -> str:
    """Return the expression for one short name: "and" binds stronger than "or", a comma less than both."""
    parts = re.split(r",\s*(and|or)\s+", name)
    expression = ""
    for part in parts:
        if part in ("and", "or"):
            expression += f" {part.upper()} "
            continue
        words = re.split(r"\s+(and|or)\s+", part)
        text = "".join(
            f" {word.upper()} " if word in ("and", "or") else
            identifier(word) or extracted.named(
                f"{source}-{word}", texts.get(word.lower()) or texts.get(name.lower()) or copyright_text
            )
            for word in words
        )  # fmt: skip
        expression += f"({text})" if len(parts) > 1 and len(words) > 1 else text
    return expression


def identifier(name: str) -> str | None:
    """Return the SPDX identifier of a short name of DEP 5 if both mean the same, else None."""
    if found := GNU.fullmatch(name):
        family, no_invariants, major, minor, later = found.groups()
        free = "-no-invariants" if no_invariants else ""
        return f"{family.upper()}-{major}{minor or '.0'}{free}-{'or-later' if later else 'only'}"
    return IDENTIFIERS.get(name.lower())
