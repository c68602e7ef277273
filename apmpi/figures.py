"""All figures that the service knows: one row each, from which everything that shows figures is made.

The journal's fields, the socket's lines, Prometheus's metrics and the monitor read the rows;
systemd/apmpi.catalog and the table in systemd/README.md are written from them (tests/test_figures.py).
Names and meanings are an interface: they stay.
"""

from dataclasses import dataclass, fields

from apmpi.settings import Features
from apmpi.units import FRAMES_PER_S

# The signals whose level is measured, and which a client of the socket can subscribe to.
SIGNALS = ("far_end", "microphone", "output")
DEVICES = ("microphone", "far_end", "speaker", "output")
# The devices whose clocks are compared with the microphone's.
CLOCKS = ("far_end", "speaker", "output")
FEATURES = tuple(entry.name for entry in fields(Features))
# Part of a name -> value of Prometheus's label `quantile`.
QUANTILES = {"median": "0.5", "p99": "0.99", "max": "1"}
SPREAD = tuple(QUANTILES)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure, or a family of figures that differ in one part of their names.

    name      in the socket's lines; in upper case after APMPI_ in the journal. {} stands for one of `parts`
    unit      of the value; "" for a count or a ratio, "0 or 1" for a flag
    doc       meaning, over the report interval unless it says otherwise
    metric    Prometheus's name after apmpi_, "" if there is none; a counter if it ends in _total
    factor    of the metric's unit, which is a base unit of Prometheus, over `unit`
    label     of the metric of a family
    parts     of a family: what stands for {}, and the values of the label
    each_s    the journal has the field NAME_EACH_S, too: a value for each second
    line      of the monitor that shows it, "" if the monitor has its own way or none
    text      there: a phrase with the value's format, or of a flag what is shown while it is 1
    unknown   value while nothing is known: the monitor leaves the phrase out
    journal   it is in the journal; all are in the socket's lines
    """

    name: str
    unit: str
    doc: str
    metric: str = ""
    factor: float = 1.0
    label: str = ""
    parts: tuple[str, ...] = ()
    each_s: bool = False
    line: str = ""
    text: str = ""
    unknown: float | None = None
    journal: bool = True

    def names(self) -> dict[str, str]:
        """Name of each figure of the row -> its value of the label."""
        named = {self.name.format(part): QUANTILES.get(part, part) for part in self.parts}
        return named or {self.name: ""}


# fmt: off
# Computed by the service (apmpi.service.instruments).
SERVICE = (
    Figure("{}_dbfs", "dBFS", "RMS level of a signal since the line before, over all channels",
           parts=SIGNALS, journal=False),
    Figure("{}_peak_dbfs", "dBFS", "Peak level of a signal since the line before, over all channels",
           parts=SIGNALS, journal=False),
    Figure("frames", "frames of 10 ms", "Sound processed since the start",
           "sound_seconds_total", factor=1.0 / FRAMES_PER_S),
    Figure("xruns", "", "Xruns of all devices since the start"),
    Figure("xruns_{}", "", "Xruns since the start: sound was lost because a card ran dry or over",
           "xruns_total", label="device", parts=DEVICES),
    Figure("slips", "", "Slips since the start: samples were left out or silence was inserted because a card "
           "stumbled without an xrun", "slips_total"),
    Figure("drift_ppm_{}", "ppm", "Rate of a device's clock over the microphone's; compensated by resampling",
           "drift_ppm", label="device", parts=CLOCKS),
    Figure("processor_share", "", "Share of one processor core; 1 is all of it", "processor_ratio"),
    Figure("latency_{}_ms", "ms", "Latency from microphone to output: sum of capture wait, processing, "
           "playback queue and algorithmic delay",
           "latency_seconds", factor=1e-3, label="quantile", parts=SPREAD),
    Figure("capture_wait_{}_ms", "ms", "Time until the microphone's 10 ms are complete and the program has "
           "woken up", parts=SPREAD),
    Figure("wake_up_{}_ms", "ms", "Part of the capture wait beyond the frame's own 10 ms", parts=SPREAD),
    Figure("processing_{}_ms", "ms", "Time until the frame is processed", parts=SPREAD),
    Figure("playback_queue_{}_ms", "ms", "Time until the output's card plays the frame; 0 for a file",
           parts=SPREAD),
    Figure("algorithmic_ms", "ms", "Delay of the chain's output behind its input"),
    Figure("{}", "0 or 1", "Whether the feature is switched on",
           "feature_enabled", label="feature", parts=FEATURES),
)

# Computed by the chain for the last frame; `name` is the attribute of apmpi.api.apm.Stats.
CHAIN = (
    Figure("erle_db", "dB", "Echo return loss enhancement: echo over residual echo, far end alone",
           "erle_db", each_s=True, line="echo", text="reduced by {:.1f} dB"),
    Figure("erl_db", "dB", "Echo return loss: far-end power over echo power at the microphone",
           "erl_db", each_s=True, line="echo", text="; it is {:.1f} dB below the far end"),
    Figure("delay_ms", "ms", "Delay of the echo behind the far end; negative: not known yet",
           "echo_delay_seconds", factor=1e-3, each_s=True, line="delay", text="{:.1f} ms after the far end"),
    Figure("delay_confidence", "", "Confidence of that delay, 0 to 1",
           "echo_delay_confidence_ratio", each_s=True, line="delay", text=", confidence {:.2f}"),
    Figure("drift_ppm", "ppm", "Microphone clock over far-end clock, as estimated from the sound and "
           "compensated", "found_drift_ppm", each_s=True, line="drift", text="found in the sound {:+.1f}"),
    Figure("references", "", "References in use: 2 while the far end's channels differ and for 2 s after, "
           "else 1", "references", line="echo", text="; {:.0f} references", unknown=1.0),
    Figure("speech_probability", "", "Probability of near-end speech, 0 to 1",
           "speech_probability_ratio", line="speech", text="probability {:.2f}"),
    Figure("noise_floor_dbfs", "dBFS", "Noise floor at the microphone",
           "noise_floor_dbfs", line="noise", text="floor {:.1f} dBFS"),
    Figure("snr_db", "dB", "Level of near-end speech while active over the noise at the microphone; 0 before "
           "half a second of speech", "snr_db",
           line="noise", text=", the talker {:.1f} dB above it", unknown=0.0),
    Figure("noise_suppression_db", "dB", "Largest attenuation of noise: the level in use, which changes with "
           "noise_suppression: auto", "noise_suppression_db",
           line="noise", text=", lowered by {:.1f} dB at most"),
    Figure("agc_gain_db", "dB", "Gain of the automatic gain control",
           "gain_db", line="gain", text="{:+.1f} dB"),
    Figure("array_gain_db", "dB", "Noise at one microphone over noise behind the beam of all, in pauses of "
           "speech; 0 without a beam", "array_gain_db",
           line="noise", text=", {:.1f} dB less by the beam", unknown=0.0),
    Figure("direction_deg", "degrees", "Direction of the talker, clockwise from the front seen from above, 0 "
           "to 360; -1: unknown, or no microphone.positions_mm", "talker_direction_degrees",
           line="speech", text=", the talker at {:.0f}°", unknown=-1.0),
    Figure("reference_present", "0 or 1", "Far-end sound within the last second; if it is always 0, is the "
           "reference wired?", "reference_present", each_s=True, line="now", text="far end heard"),
    Figure("converged", "0 or 1", "The echo path is known: the canceller attenuates echo by 10 dB or more",
           "converged", each_s=True, line="now", text="echo path known"),
    Figure("double_talk", "0 or 1", "Near end and far end are active",
           "double_talk", each_s=True, line="now", text="both talk"),
    Figure("microphone_clipping", "0 or 1", "Full-scale samples within the last second: the capture level is "
           "too high", "microphone_clipping", each_s=True, line="now", text="MICROPHONE CLIPS"),
    Figure("microphone_too_quiet", "0 or 1", "Near-end speech stays 3 dB or more below gain_target_dbfs with "
           "the largest gain, gain_max_db", "microphone_too_quiet", line="now", text="MICROPHONE TOO QUIET"),
    Figure("divergences", "", "Count of divergences: the echo estimate added power instead of removing it",
           "divergences_total", each_s=True),
)
# fmt: on

FIGURES = (*SERVICE, *CHAIN)


def journal_field(name: str) -> str:
    """Name of a figure in the journal."""
    return f"APMPI_{name.upper()}"


def each_s_field(name: str) -> str:
    """Name of a figure's history by the second in the journal."""
    return f"APMPI_{name.upper()}_EACH_S"
