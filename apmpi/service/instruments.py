"""State that the audio thread publishes, and the figures of an interval made from it.

The audio thread writes, all other threads read, without a lock: each field of `Board` is one reference, and
`LatencyLog` publishes its count after its values. Reading never delays the audio thread.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from apmpi.api.apm import Stats, stats_of
from apmpi.cards.latency import LatencyLog, LatencySummary
from apmpi.figures import CHAIN, FEATURES, QUANTILES, each_s_field, journal_field
from apmpi.service.chime import Chime
from apmpi.settings import Features, Settings
from apmpi.units import FRAMES_PER_S

# Shortest time over which the processor's share is computed: one tick of the reporter.
SHARE_MIN_S = 0.1


@dataclass(slots=True)
class Board:
    """State shared by the audio thread and the reporter. Each field is a reference that one thread replaces
    as a whole, so neither thread needs a lock or waits.

    Written by the reporter:
        settings   to be applied by the audio thread
        stop       end the run; also set when any thread fails
        chime      the tones, once they are due
    Written by the audio thread:
        applied    settings in use
        figures    the chain's, as stats_of() takes them, 10 times a second; None before the first
        parked     the device that is waited for, as a sentence; "" if none is
        mono       treatment of channels that a mean would harm, in sentences
        beats      grows with each frame, and while a device is waited for
    """

    settings: Settings
    applied: Settings
    figures: Mapping[str, float] | None = None
    parked: str = ""
    mono: str = ""
    beats: int = 0
    stop: bool = False
    chime: Chime | None = None

    @property
    def core(self) -> Stats | None:
        """The chain's figures; for all threads but the audio thread, see LoopChain.figures()."""
        figures = self.figures
        return None if figures is None else stats_of(figures)


@dataclass(frozen=True, slots=True)
class Interval:
    """Figures of one interval. `seconds` has the chain's figures for each second of it, oldest first."""

    frames: int
    latency: LatencySummary | None
    xruns: Mapping[str, int]
    slips: int
    drift_ppm: Mapping[str, float]
    processor_share: float
    features: Features
    core: Stats | None
    seconds: Sequence[Stats] = ()

    def values(self) -> dict[str, object]:
        """Return the figures by their names in apmpi.figures; those that do not apply are left out."""
        values: dict[str, object] = {
            "frames": self.frames,
            "slips": self.slips,
            "processor_share": self.processor_share,
        }
        values |= xrun_values(self.xruns) | flag_values(self.features)
        values |= {f"drift_ppm_{key}": ppm for key, ppm in self.drift_ppm.items()}
        if self.latency is not None:
            values["algorithmic_ms"] = self.latency.algorithmic_ms
            for name in ("total", "capture_wait", "wake_up", "processing", "playback_queue"):
                key = "latency" if name == "total" else name
                spread = getattr(self.latency, name)
                values |= {f"{key}_{part}_ms": getattr(spread, f"{part}_ms") for part in QUANTILES}
        if self.core is not None:
            values |= {row.name: getattr(self.core, row.name) for row in CHAIN}
        return values

    def fields(self) -> dict[str, str]:
        """Return the figures as the journal's fields."""
        texts = journal_fields(self.values())
        for row in CHAIN if self.seconds else ():
            if row.each_s:
                history = (_text(getattr(second, row.name)) or "nan" for second in self.seconds)
                texts[each_s_field(row.name)] = " ".join(history)
        return texts

    def sentence(self) -> str:
        """Return the state in short: "cancelling echo: 32 dB, latency 21 ms, 0 xruns"."""
        parts = [_echo_state(self.core, self.features)]
        if self.latency is not None:
            parts.append(f"latency {self.latency.total.median_ms:.0f} ms")
        parts.append(counted(sum(self.xruns.values()), "xrun"))
        if self.slips:
            parts.append(counted(self.slips, "slip"))
        return ", ".join(parts)

    def line(self) -> str:
        """Return the line for a terminal: the sentence, with time, latency and processor share."""
        minutes, seconds = divmod(self.frames // FRAMES_PER_S, 60)
        line = f"{minutes}:{seconds:02d}  {self.sentence()}"
        if self.latency is not None:
            total = self.latency.total
            line += f", 99 % below {total.p99_ms:.1f} ms, at most {total.max_ms:.1f} ms"
        return f"{line}, processor {self.processor_share:.1%}"


def counted(count: int, thing: str) -> str:
    """Return "1 xrun", "2 xruns"."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _echo_state(core: Stats | None, features: Features) -> str:
    if not features.echo_cancellation:
        return "echo cancellation is off"
    if core is None:
        return "starting"
    if not core.reference_present:
        return "nothing is played"
    return f"{'cancelling echo' if core.converged else 'learning the echo'}: {core.erle_db:.0f} dB"


def xrun_values(xruns: Mapping[str, int]) -> dict[str, object]:
    """Return the figures of xruns, from counts by device."""
    return {"xruns": sum(xruns.values()), **{f"xruns_{key}": count for key, count in xruns.items()}}


def flag_values(features: Features) -> dict[str, object]:
    """Return the figures of the features: whether each is switched on."""
    return {name: bool(getattr(features, name)) for name in FEATURES}


def journal_fields(values: Mapping[str, object]) -> dict[str, str]:
    """Return the values as the journal's fields; those without a finite value are left out."""
    texts = {journal_field(name): _text(value) for name, value in values.items()}
    return {name: text for name, text in texts.items() if text}


def _text(value: object) -> str:
    """Return a flag as 0 or 1, a number with three decimals, "" for what is not finite or not a number."""
    if isinstance(value, bool | int):
        return str(int(value))
    return f"{value:.3f}" if isinstance(value, float) and math.isfinite(value) else ""


@dataclass(frozen=True, slots=True)
class Moment:
    """Begin or end of an interval."""

    time_s: float
    frames: int
    processor_s: float


@dataclass(frozen=True, slots=True)
class Instruments:
    """Readings of a running loop, from any thread; none delays the audio thread."""

    board: Board
    latency: LatencyLog
    xruns: Callable[[], dict[str, int]]
    slips: Callable[[], int]
    drift_ppm: Callable[[], dict[str, float]]

    def now(self) -> Moment:
        """Return the present moment."""
        return Moment(time.monotonic(), self.latency.frames, time.process_time())

    def interval(self, since: Moment, seconds: Sequence[Stats] = ()) -> Interval:
        """Return the figures since that moment."""
        now = self.now()
        elapsed_s = max(now.time_s - since.time_s, SHARE_MIN_S)
        return Interval(
            frames=now.frames,
            latency=self.latency.summary(since.frames),
            xruns=self.xruns(),
            slips=self.slips(),
            drift_ppm=self.drift_ppm(),
            processor_share=(now.processor_s - since.processor_s) / elapsed_s,
            features=self.board.applied.features,
            core=self.board.core,
            seconds=seconds,
        )
