"""Figures in Prometheus's text format (prometheus.io/docs/instrumenting/exposition_formats), in its units:
seconds, ratios from 0 to 1; decibels stay."""

import math

from apmpi.figures import FIGURES
from apmpi.service.instruments import Interval

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def text(interval: Interval, waiting: str) -> str:
    """Return the page of all metrics; those without a value are left out.

    `waiting` is what is waited for, "" if nothing is."""
    page = _family("up", "Sound flows: 1; a device is waited for: 0", {"": not waiting})
    values = interval.values()
    for row in FIGURES:
        samples = {}
        for name, part in row.names().items():
            value = values.get(name)
            if row.metric and isinstance(value, int | float) and math.isfinite(value):
                samples[f'{{{row.label}="{part}"}}' if part else ""] = value * row.factor
        page += _family(row.metric, row.doc, samples)
    return page


def _family(name: str, meaning: str, samples: dict[str, float]) -> str:
    """Return the lines of one metric: a value for each set of labels, nothing if there are none."""
    if not samples:
        return ""
    kind = "counter" if name.endswith("_total") else "gauge"
    lines = [f"apmpi_{name}{labels} {value:.10g}\n" for labels, value in samples.items()]
    return f"# HELP apmpi_{name} {meaning}\n# TYPE apmpi_{name} {kind}\n" + "".join(lines)
