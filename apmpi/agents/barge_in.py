"""BargeIn: whether speech at the microphone may interrupt what the loudspeaker plays."""

from __future__ import annotations

from dataclasses import dataclass

from apmpi.api.apm import Stats

# Cumulative sum (E. S. Page, "Continuous inspection schemes", Biometrika 41, 1954) of the probability of
# near-end speech over this one, in seconds. Speech begins at ONSET_S, 80 ms of certain speech, and ends at 0,
# after at most 300 ms of certain silence. In ten simulated rooms a minute of far-end speech each raised no
# alarm, and near-end speech over it was found after 0.4 s in the median (bench.py barge_in).
PROBABILITY = 0.5
ONSET_S = 0.04
LIMIT_S = 0.15


@dataclass(frozen=True, slots=True)
class BargeIn:
    """Evidence by which a program decides whether to stop speaking."""

    near_end_active: bool = False
    """near-end speech, held over the pauses between words"""
    echo_free: bool = True
    """nothing was played within the last second, or the canceller attenuates its echo by 10 dB or more"""
    double_talk: bool = False
    """both ends were active in the last 10 ms"""
    speech_probability: float = 0.0
    """of near-end speech in the last 10 ms, 0 to 1"""

    @property
    def allowed(self) -> bool:
        """True if the near end speaks and it is not the loudspeaker's echo that is taken for speech."""
        return self.near_end_active and self.echo_free


class BargeInDetector:
    """Derives a BargeIn from the figures of the chain."""

    def __init__(self) -> None:
        self.state = BargeIn()
        self._sum_s = 0.0

    def update(self, stats: Stats, seconds: float) -> bool:
        """Take the figures after `seconds` of sound. True if near_end_active or echo_free has changed."""
        before = self.state
        self._sum_s += (stats.speech_probability - PROBABILITY) * seconds
        self._sum_s = min(max(self._sum_s, 0.0), LIMIT_S)
        self.state = BargeIn(
            near_end_active=self._sum_s > 0.0 if before.near_end_active else self._sum_s >= ONSET_S,
            echo_free=stats.converged or not stats.reference_present,
            double_talk=stats.double_talk,
            speech_probability=stats.speech_probability,
        )
        return (self.state.near_end_active, self.state.echo_free) != (
            before.near_end_active,
            before.echo_free,
        )
