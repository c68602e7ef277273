"""`apmpi report`: a recording of `apmpi record` as one self-contained HTML page with figures, pictures and
players.

The players' sound is embedded as FLAC: lossless, at half the size.
"""

from __future__ import annotations

import base64
import html
import io
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from apmpi.cards.replace import RECORDING_MODE, replace
from apmpi.cards.text_file import one_line, read_bytes
from apmpi.cards.wav import open_sound
from apmpi.errors import CommandError, FileError
from apmpi.figures import SIGNALS
from apmpi.service.bounded_json import JsonError, parsed
from apmpi.service.protocol import LINE_MAX_BYTES
from apmpi.service.socket_client import Figures, figures_of
from apmpi.settings import CHANNELS_MAX, SAMPLE_RATES_HZ
from apmpi.tools.picture import Samples, draw_spectrogram, level_dbfs
from apmpi.tools.record import statistics_path
from apmpi.units import FRAMES_PER_S

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A browser reads a page into memory as a whole: ten minutes of three channels take some 100 MB.
SECONDS_MAX = 600.0
# The statistics of ten minutes are 9 MB; a larger file is not one of statistics.
STATISTICS_MAX_BYTES = 48 * 1024 * 1024
LEVEL_WINDOW_FRAMES = 40  # window of the levels over time: 0.4 s, two or three syllables
TITLES = {
    "far_end": "Far end: what the loudspeaker plays",
    "microphone": "Before: what the microphone hears",
    "output": "After: what leaves",
}


def main(recording: Path, output: Path) -> int:
    """Write the page and return the exit status.

    Raises CommandError, or EndpointError if the recording cannot be read.
    """
    try:
        import matplotlib  # noqa: F401 - asked before the work, not after it
    except ImportError:
        raise CommandError(
            "matplotlib, which draws the pictures, is not installed: pip install 'apmpi[demo]', "
            "or make the report on another computer"
        ) from None
    if output.exists() and any(output.samefile(path) for path in (recording, statistics_path(recording))):
        raise CommandError(f"{output}: is the recording itself, expected another file")
    call = load(recording)
    text = page(call, recording.name)
    try:
        replace(output, text.encode(), RECORDING_MODE)
    except OSError as error:
        raise CommandError(f"{output}: cannot be written ({error.strerror})") from None
    length = f"{call.seconds:.1f} s, {len(text) / 1e6:.1f} MB"
    print(f"{one_line(str(output))}: {length}; open it in a browser")
    return 0


# ---- reading


@dataclass(frozen=True)
class Call:
    """A recording.

    started   date and time
    sounds    by signal, float64 as [samples, channels], -1 to 1
    figures   rows of figures, ordered by position in the sound
    end       last line of the statistics, empty if there is none
    """

    started: str
    rate_hz: int
    sounds: dict[str, Samples]
    figures: list[Figures]
    end: dict[str, Any]

    @property
    def seconds(self) -> float:
        return len(self.sounds["far_end"]) / self.rate_hz

    def series(self, name: str) -> tuple[Samples, Samples]:
        """Return positions in seconds and values of a figure; unknown values are NaN."""
        rows = [(row["seconds"], row.get(name)) for row in self.figures]
        values = [np.nan if value is None else float(value) for _, value in rows]
        return np.array([second for second, _ in rows]), np.array(values)


def load(recording: Path) -> Call:
    """Read a recording and the statistics beside it.

    Raises EndpointError if the sound cannot be read, CommandError if the two do not belong together.
    """
    about, figures, end = _statistics(statistics_path(recording))
    try:
        rate_hz = about["sample_rate_hz"]
        channels = {name: about["channels"][name] for name in SIGNALS}
        known = rate_hz in SAMPLE_RATES_HZ and all(
            isinstance(count, int) and 1 <= count <= CHANNELS_MAX for count in channels.values()
        )
    except (KeyError, TypeError):
        known = False
    if not known:
        raise CommandError(
            f"{statistics_path(recording)}:1: tells nothing of a recording, expected its shape"
        )
    with open_sound(recording) as file:
        shape = file.rate_hz, file.channels
        if shape != (rate_hz, sum(channels.values())):
            expected = f"{sum(channels.values())} channels at {rate_hz} Hz as in {statistics_path(recording)}"
            raise CommandError(f"{recording}: has {shape[1]} channels at {shape[0]} Hz, expected {expected}")
        samples = file.samples or 0
        if not 0 < samples <= SECONDS_MAX * rate_hz:
            length = f"holds {samples / rate_hz:.0f} s"
            raise CommandError(f"{recording}: {length}, expected sound, at most {SECONDS_MAX:.0f} s")
        sound = file.read(samples) / 32768.0
    sounds, first = {}, 0
    for name, count in channels.items():
        sounds[name] = sound[:, first : first + count]
        first += count
    return Call(str(about.get("started", "")), rate_hz, sounds, figures, end)


def _statistics(path: Path) -> tuple[dict[str, Any], list[Figures], dict[str, Any]]:
    """Return the line about the recording, the figures and the line about the end. Raises CommandError."""
    try:
        content = read_bytes(path, "the statistics beside the recording", STATISTICS_MAX_BYTES)
    except FileError as error:
        raise CommandError(str(error)) from None
    about: dict[str, Any] = {}
    end: dict[str, Any] = {}
    figures: list[Figures] = []
    for number, text in enumerate(content.splitlines(), start=1):
        try:
            line = parsed(text, LINE_MAX_BYTES)
        except JsonError:
            raise CommandError(f"{path}:{number}: is no line of statistics, expected JSON") from None
        if number == 1:
            about = line["recording"] if isinstance(line.get("recording"), dict) else {}
        elif isinstance(line.get("end"), dict):
            end = line["end"]
        elif (row := figures_of({"figures": line})) and isinstance(row.get("seconds"), int | float):
            figures.append(row)
    return about, figures, end


# ---- figures


def summary(call: Call) -> list[tuple[str, str]]:
    """Return the rows (label, text) of the table."""
    playing = call.series("reference_present")[1] == 1
    _, erle_db = call.series("erle_db")
    _, latency_ms = call.series("latency_median_ms")
    _, worst_ms = call.series("latency_max_ms")
    _, delay_ms = call.series("delay_ms")
    _, confidence = call.series("delay_confidence")
    _, clipping = call.series("microphone_clipping")
    _, xruns = call.series("xruns")
    known = (delay_ms >= 0) & (confidence > 0.5)
    rows = [
        ("Recorded", f"{call.started or 'at an unknown time'}, {call.seconds:.1f} s at {call.rate_hz} Hz"),
        ("Far end", _far_end(playing, call.series("references")[1])),
        ("Echo reduction", _range(erle_db[playing], "dB", "while the far end plays")),
        ("Delay of the echo", _range(delay_ms[known], "ms", "where it is known")),
        ("Latency", _range(latency_ms, "ms") + f", at most {_worst(worst_ms)} ms"),
        ("Xruns", _counted(xruns)),
        ("Microphone", "CLIPS: lower its gain" if np.nanmax(clipping, initial=0) else "does not clip"),
    ]
    rows += [
        (f"Drift of {name.replace('_', ' ')}", _range(call.series(f"drift_ppm_{name}")[1], "ppm"))
        for name in ("far_end", "speaker", "output")
        if np.isfinite(call.series(f"drift_ppm_{name}")[1]).any()
    ]
    if lost := call.end.get("lost_frames"):
        rows.append(("Not recorded", f"{lost} frames of 10 ms: the disk or the processor was too slow"))
    if not call.end:
        rows.append(("End", "not told: the recording did not end as it should"))
    elif (reason := call.end.get("reason")) not in ("complete", "stopped"):
        rows.append(("End", str(reason)))
    return rows


def _far_end(playing: Samples, references: Samples) -> str:
    if not len(playing):
        return "?"
    text = f"plays {np.mean(playing):.0%} of the time"
    share = np.mean(references[playing] == 2) if playing.any() else 0.0
    return f"{text}; left and right differ in {share:.0%} of it: two references" if share else text


def _range(values: Samples, unit: str, when: str = "") -> str:
    values = values[np.isfinite(values)]
    if not len(values):
        return "not known"
    low, middle, high = np.percentile(values, (5, 50, 95))
    return f"{middle:.1f} {unit}, 90 % within {low:.1f} to {high:.1f} {unit} {when}".rstrip()


def _worst(values: Samples) -> str:
    values = values[np.isfinite(values)]
    return f"{values.max():.1f}" if len(values) else "?"


def _counted(xruns: Samples) -> str:
    xruns = xruns[np.isfinite(xruns)]
    return f"{xruns[-1] - xruns[0]:.0f} while it was recorded" if len(xruns) else "not known"


# ---- pictures


def draw(call: Call) -> tuple[bytes, float, float]:
    """Return the PNG, and the left and right end of the time axis as parts of its width (0 to 1)."""
    from matplotlib.figure import Figure

    figure: Figure = Figure(figsize=(13, 17), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(6, 1, sharex=True, height_ratios=[3, 3, 2.2, 1.8, 1.8, 1.8])
    before, after, levels, echo, delay, latency = axes
    # The mean of all channels shows what is in any of them.
    mono = {name: sound.mean(axis=1) for name, sound in call.sounds.items()}
    image = draw_spectrogram(before, mono["microphone"], call.rate_hz, TITLES["microphone"])
    draw_spectrogram(after, mono["output"], call.rate_hz, TITLES["output"])
    figure.colorbar(image, ax=[before, after], label="level per band (dBFS)", pad=0.01)
    _draw_levels(levels, mono, call.rate_hz)
    _draw_echo(echo, call)
    _draw_delay(delay, call)
    _draw_latency(latency, call)
    latency.set(xlabel="time (s)", xlim=(0, call.seconds))
    for part in axes[2:]:
        part.grid(alpha=0.3)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    place = latency.get_position()
    return content.getvalue(), float(place.x0), float(place.x1)


def _draw_levels(axes: Axes, sounds: dict[str, Samples], rate_hz: int) -> None:
    colours = {"far_end": "tab:orange", "microphone": "tab:red", "output": "tab:blue"}
    for name, sound in sounds.items():
        level = level_dbfs(sound, rate_hz // FRAMES_PER_S, LEVEL_WINDOW_FRAMES)
        time_s = (np.arange(len(level)) + 0.5) / FRAMES_PER_S
        axes.plot(time_s, level, color=colours[name], label=name.replace("_", " "))
    axes.set(title="Levels", ylabel="dBFS")
    axes.legend(loc="upper right")


def _draw_echo(axes: Axes, call: Call) -> None:
    time_s, erle_db = call.series("erle_db")
    _, both = call.series("double_talk")
    axes.plot(time_s, erle_db, color="tab:green")
    axes.fill_between(
        time_s, 0, 1, where=both == 1, color="tab:purple", alpha=0.15, transform=axes.get_xaxis_transform(),
        label="both talk",
    )  # fmt: skip
    axes.set(title="Echo reduction (ERLE), as the canceller knows it", ylabel="dB")
    axes.legend(loc="upper right")


def _draw_delay(axes: Axes, call: Call) -> None:
    time_s, delay_ms = call.series("delay_ms")
    delay_ms[delay_ms < 0] = np.nan
    axes.plot(time_s, delay_ms, color="tab:blue", label="delay")
    axes.set(title="Delay of the echo, and drift of the clocks", ylabel="ms")
    ppm = axes.twinx()
    for name in ("drift_ppm_far_end", "drift_ppm_speaker", "drift_ppm_output", "drift_ppm"):
        _, drift = call.series(name)
        if np.isfinite(drift).any():
            where = name[10:].replace("_", " ") or "found in the sound"
            colour = f"C{len(ppm.lines) + 1}"
            ppm.plot(time_s, drift, linestyle="--", linewidth=1, color=colour, label=f"drift, {where}")
    ppm.set(ylabel="ppm")
    lines = [*axes.lines, *ppm.lines]
    axes.legend(lines, [str(line.get_label()) for line in lines], loc="upper right")


def _draw_latency(axes: Axes, call: Call) -> None:
    time_s, median_ms = call.series("latency_median_ms")
    _, worst_ms = call.series("latency_max_ms")
    _, xruns = call.series("xruns")
    axes.plot(time_s, worst_ms, color="tab:red", linewidth=0.8, label="worst of 0.1 s")
    axes.plot(time_s, median_ms, color="tab:green", label="median of 0.1 s")
    for second in time_s[1:][np.diff(xruns) > 0]:
        axes.axvline(second, color="black", label="xrun")
    axes.set(title="Latency, microphone to output", ylabel="ms", ylim=(0, None))
    axes.legend(loc="upper right")


# ---- the page


def page(call: Call, name: str) -> str:
    """Return the page as HTML; `name` is the recording's file name."""
    picture, begin, end = draw(call)
    rows = "\n".join(
        f"<tr><th>{html.escape(label)}</th><td>{html.escape(text)}</td></tr>" for label, text in summary(call)
    )
    players = "\n".join(
        f'<div class="player"><label for="{signal}">{html.escape(title)} <span></span></label>'
        f'<audio id="{signal}" controls src="{_flac(call.sounds[signal], call.rate_hz)}"></audio></div>'
        for signal, title in TITLES.items()
    )
    template = string.Template(Path(__file__).with_name("page.html").read_text())
    return template.substitute(
        name=html.escape(name.encode(errors="replace").decode()),
        rows=rows,
        players=players,
        picture=base64.b64encode(picture).decode(),
        begin=begin,
        width=end - begin,
    )


def _flac(sound: Samples, rate_hz: int) -> str:
    """Return the sound as a data: address of FLAC."""
    content = io.BytesIO()
    soundfile.write(content, sound, rate_hz, format="FLAC", subtype="PCM_16")
    return f"data:audio/flac;base64,{base64.b64encode(content.getvalue()).decode()}"
