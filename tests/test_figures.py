"""Everything that shows a figure has the rows of apmpi.figures.

python tests/test_figures.py    writes the catalogue's list and the table of systemd/README.md anew
"""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import fields
from pathlib import Path

import pytest

from apmpi.api.apm import Stats
from apmpi.cards.latency import LatencyLog
from apmpi.figures import CHAIN, CLOCKS, DEVICES, FIGURES, Figure, each_s_field, journal_field
from apmpi.service import metrics
from apmpi.service.instruments import Interval
from apmpi.settings import Features

ROOT = Path(__file__).parents[1]
CATALOG, README = ROOT / "systemd/apmpi.catalog", ROOT / "systemd/README.md"
TABLE_HEAD = "| field | unit | meaning | metric |\n|---|---|---|---|\n"
COLUMNS = 110


def catalog_list() -> str:
    """Return the figures' fields and what they mean."""
    entries = [
        (map(journal_field, row.names()), row.doc + (f" ({row.unit})" if row.unit else ""))
        for row in FIGURES
        if row.journal
    ]
    each_s = (each_s_field(row.name) for row in CHAIN if row.each_s)
    entries.append(
        (each_s, "The same once a second, oldest first, with blanks between; at most the last minute")
    )
    text = ""
    for names, doc in entries:
        text += textwrap.fill(", ".join(names), COLUMNS, initial_indent=" " * 4, subsequent_indent=" " * 4)
        indent = " " * 8
        text += f"\n{textwrap.fill(doc, COLUMNS, initial_indent=indent, subsequent_indent=indent)}\n"
    return text


def readme_table() -> str:
    """Return the same as a table, with Prometheus's names."""
    lines = []
    for row in FIGURES:
        if row.journal:
            part = f"; `*`: {', '.join(part.upper() for part in row.parts)}" if row.parts else ""
            field = f"`{journal_field(row.name.format('*'))}`" + (", `_EACH_S`" if row.each_s else "")
            label = f"{{{row.label}}}" if row.label else ""
            metric = f"`apmpi_{row.metric}{label}`" if row.metric else ""
            lines.append(f"| {field} | {row.unit} | {row.doc}{part} | {metric} |\n")
    return TABLE_HEAD + "".join(lines)


def written_anew() -> dict[Path, str]:
    """Return the files with the list and the table as the rows have them."""
    catalog = re.sub(r"(?m)(^ {4,8}\S.*\n)+", lambda _: catalog_list(), CATALOG.read_text(), count=1)
    table = re.escape(TABLE_HEAD) + r"(\|.*\n)*"
    return {CATALOG: catalog, README: re.sub(table, lambda _: readme_table(), README.read_text())}


@pytest.mark.parametrize("path", [CATALOG, README], ids=lambda path: path.name)
def test_documents_list_the_rows(path: Path) -> None:
    expected = written_anew()[path]
    assert path.read_text() == expected, "run python tests/test_figures.py"


def test_the_dashboard_shows_metrics_that_exist() -> None:
    dashboard = json.loads((ROOT / "docs/fleet-dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    named = {name for text in expressions for name in re.findall(r"apmpi_(\w+)", text)}
    assert named and named <= {"up"} | {row.metric for row in FIGURES if row.metric}


def names(rows: tuple[Figure, ...]) -> set[str]:
    return {name for row in rows for name in row.names()}


def test_journal_socket_and_metrics_have_the_rows() -> None:
    log = LatencyLog(capacity_frames=10, algorithmic_ms=6.0)
    log.add(10.25, 0.5, 4.5)
    interval = Interval(
        frames=1,
        latency=log.summary(0),
        xruns=dict.fromkeys(DEVICES, 0),
        slips=0,
        drift_ppm=dict.fromkeys(CLOCKS, 0.0),
        processor_share=0.1,
        features=Features(),
        core=Stats(),
        seconds=[Stats()],
    )
    in_journal = tuple(row for row in FIGURES if row.journal)
    assert set(interval.values()) == names(in_journal)
    histories = {each_s_field(row.name) for row in CHAIN if row.each_s}
    assert set(interval.fields()) == {journal_field(name) for name in names(in_journal)} | histories
    page = re.findall(r"^apmpi_(\w+)", metrics.text(interval, ""), re.MULTILINE)
    assert set(page) == {"up", *(row.metric for row in FIGURES if row.metric)}


def test_names_are_different() -> None:
    assert len(names(FIGURES)) == sum(len(row.names()) for row in FIGURES)
    metric_names = [row.metric for row in FIGURES if row.metric]
    assert len(metric_names) == len(set(metric_names))


def test_each_figure_of_the_chain_has_a_row() -> None:
    assert {row.name for row in CHAIN} == {field.name for field in fields(Stats)}


def test_monitor_shows_nothing_without_a_row() -> None:
    monitor = (ROOT / "apmpi/tools/monitor.py").read_text()
    used = set(re.findall(r'figures(?:\.get\(|\[)"(\w+)"', monitor))
    used |= set(re.findall(r'"(\w+_ms)"', monitor))
    assert used - {"state", "waiting"} <= names(FIGURES)


if __name__ == "__main__":
    for path, text in written_anew().items():
        path.write_text(text)
