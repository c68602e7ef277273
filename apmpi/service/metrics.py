"""Figures in Prometheus's text format (prometheus.io/docs/instrumenting/exposition_formats), in its units:
seconds, ratios from 0 to 1; decibels stay."""

import math
from collections.abc import Mapping

from apmpi.service.report import Figures, flag_values
from apmpi.units import FRAMES_PER_S

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def text(figures: Figures, waiting: str) -> str:
    """All metrics; those without a value are left out. `waiting` is what is waited for, "" if nothing is."""
    page = _Page()
    page.add("up", "Sound flows: 1; a device is waited for: 0", not waiting)
    page.add("sound_seconds_total", "Sound processed since the start", figures.frames / FRAMES_PER_S)
    page.add(
        "xruns_total",
        "How often sound was lost because a card ran dry or over",
        {f'device="{key}"': count for key, count in figures.xruns.items()},
    )
    page.add("slips_total", "How often a card stumbled without an xrun", figures.slips)
    page.add(
        "drift_ppm",
        "How much faster than the microphone's clock that of the device is",
        {f'device="{key}"': ppm for key, ppm in figures.drift_ppm.items()},
    )
    page.add("processor_ratio", "Share of one processor core", figures.processor_share)
    if (latency := figures.latency) is not None:
        total = latency.total
        of_frames = {"0.5": total.median_ms, "0.99": total.p99_ms, "1": total.max_ms}
        page.add(
            "latency_seconds",
            "From microphone to output, over the last seconds",
            {f'quantile="{part}"': value_ms / 1000 for part, value_ms in of_frames.items()},
        )
    page.add(
        "feature_enabled",
        "What is switched on",
        {f'feature="{name}"': bool(on) for name, on in flag_values(figures.features).items()},
    )
    if figures.core is not None:
        for name, (metric, meaning, scale) in CORE.items():
            page.add(metric, meaning, float(getattr(figures.core, name)) * scale)
    return page.text


# Field of the canceller's figures -> metric, what it means, its unit's factor.
CORE = {
    "erle_db": ("erle_db", "How much quieter the echo leaves than it came", 1.0),
    "erl_db": ("erl_db", "How much quieter the echo comes than it was played", 1.0),
    "delay_ms": ("echo_delay_seconds", "Of the echo behind the far end; below 0: not known yet", 1e-3),
    "delay_confidence": ("echo_delay_confidence_ratio", "Of that delay", 1.0),
    "drift_ppm": ("found_drift_ppm", "Microphone clock over far-end clock, as found in the sound", 1.0),
    "speech_probability": ("speech_probability_ratio", "Of near-end speech", 1.0),
    "noise_floor_dbfs": ("noise_floor_dbfs", "At the microphone", 1.0),
    "snr_db": ("snr_db", "Speech over noise at the microphone", 1.0),
    "noise_suppression_db": ("noise_suppression_db", "By how much noise is lowered", 1.0),
    "agc_gain_db": ("gain_db", "Of the automatic gain control", 1.0),
    "converged": ("converged", "The echo path is known", 1.0),
    "reference_present": ("reference_present", "The far end is heard", 1.0),
    "double_talk": ("double_talk", "Both ends speak", 1.0),
    "microphone_clipping": ("microphone_clipping", "The microphone's level is too high", 1.0),
    "microphone_too_quiet": ("microphone_too_quiet", "The microphone's level is too low", 1.0),
    "divergences": ("divergences_total", "How often the echo estimate added power instead of taking it", 1.0),
}


class _Page:
    def __init__(self) -> None:
        self.text = ""

    def add(self, name: str, meaning: str, values: Mapping[str, float] | float) -> None:
        """One metric: a number, or one for each set of labels."""
        labelled = values if isinstance(values, Mapping) else {"": values}
        known = {labels: float(value) for labels, value in labelled.items() if math.isfinite(value)}
        if not known:
            return
        kind = "counter" if name.endswith("_total") else "gauge"
        self.text += f"# HELP apmpi_{name} {meaning}\n# TYPE apmpi_{name} {kind}\n"
        for labels, value in known.items():
            self.text += f"apmpi_{name}{'{' + labels + '}' if labels else ''} {value:.10g}\n"
