"""Noise and residual-echo suppression by one gain per bin.

Noise: T. Gerkmann, R. Hendriks, IEEE TASLP 20 (2012), raised by the minimum of the last seconds (R. Martin,
IEEE TSAP 9 (2001)). Gain: Y. Ephraim, D. Malah, IEEE Trans. ASSP 33 (1985), log-spectral amplitude, prior
decision-directed.
"""

from __future__ import annotations

import itertools

import numpy as np
from reference.c_constants import c_constants
from reference.signals import Signal
from scipy.special import exp1

LEVEL = c_constants("ns/level.h", "ns/level.c")
C = c_constants(
    "kernels/levels.h",
    "ns/block.h",
    "ns/bands.h",
    "ns/bands.c",
    "ns/noise_floor.c",
    "ns/tonality.h",
    "ns/steady.c",
    "ns/presence.c",
    "ns/near_end.c",
    "ns/clatter.h",
    "ns/clatter.c",
    "ns/foreground.c",
    "ns/gain.c",
    "ns/weighting.c",
    "ns/comfort.c",
    "ns/ns.c",
)


def ramp(x: float, low: float, high: float) -> float:
    return float(np.clip((x - low) / (high - low), 0.0, 1.0))


def follow(average: float, value: float, rise_rate: float, fall_rate: float) -> float:
    return average + (rise_rate if value > average else fall_rate) * (value - average)


def follow_each(average: Signal, value: Signal) -> Signal:
    """Smooth powers of which a minimum is taken."""
    rate = np.where(value > average, C.SMOOTH_RISE_RATE, C.SMOOTH_FALL_RATE)
    return average + rate * (value - average)


class NoiseFloor:
    """Power of the noise by bin: a tracker by speech presence, and minimum statistics."""

    def __init__(self, bins: int, quiet: float) -> None:
        self.quiet = quiet
        self.noise, self.smooth = np.full(bins, quiet), np.zeros(bins)
        self.lowest, self.lowest_next = np.full(bins, np.inf), np.full(bins, np.inf)
        self.clear_blocks = np.zeros(bins)
        self.blocks = 0
        # of each block: smoothed power by band, foreground, tonality
        self.window: list[tuple[Signal, float, float]] = []
        self.held_windows = 0

    def process(
        self,
        power: Signal,
        echo: Signal,
        speech_probability: float,
        near_end: NearEnd,
        tonality: float,
        bands: Bands,
    ) -> None:
        self.smooth = follow_each(self.smooth, power) if self.blocks else power
        posterior = np.pad(power / self.noise, 1, mode="edge")
        mean = (posterior[:-2] + posterior[1:-1] + posterior[2:]) / 3.0
        exponential = np.exp(-mean * C.PRIOR_SNR / (1.0 + C.PRIOR_SNR))
        presence = 1.0 / (1.0 + (1.0 + C.PRIOR_SNR) * exponential)
        rate = C.NOISE_RATE * (1.0 - speech_probability) * (1.0 - C.QUIET_ROOM_HOLD * near_end.quiet_room)
        innovation = np.minimum(power, C.OUTLIER * self.noise) - self.noise
        noise = self.noise + rate * (1.0 - presence) * innovation
        lowest = np.minimum(self.lowest, self.smooth)
        least = C.MINIMUM_BIAS * lowest if self.blocks >= C.FIRST_MINIMUM_BLOCKS else 0.0
        clear = C.ECHO_MARGIN * echo <= C.MOST_ECHO * self.smooth
        self.noise = np.where(clear, np.maximum(np.maximum(noise, least), self.quiet), self.noise)
        self.lowest = np.where(clear, lowest, self.lowest)
        self.lowest_next = np.where(clear, np.minimum(self.lowest_next, self.smooth), self.lowest_next)
        self.clear_blocks += clear
        self.blocks += 1
        self.window.append((bands.smooth_input.copy(), near_end.foreground, tonality))
        if len(self.window) == C.MINIMUM_BLOCKS:
            tonal = sum(tonality for _, _, tonality in self.window) > C.TONAL * C.MINIMUM_BLOCKS
            held = self._held_foreground(C.TONAL_CONSTANT if tonal else C.CONSTANT)
            held = held and (tonal or self.held_windows < C.HELD_WINDOWS_MAX)
            self.held_windows = self.held_windows + 1 if held and not tonal else 0
            complete = (self.clear_blocks >= C.MINIMUM_CLEAR_BLOCKS) & (not held)
            self.lowest = np.where(complete, self.lowest_next, self.lowest)
            self.lowest_next[:], self.clear_blocks[:] = np.inf, 0.0
            self.window.clear()

    def _held_foreground(self, constant: float) -> bool:
        """Return whether the window held a sound that stands clear of the noise and is not constant."""
        smoothed = np.array([power for power, _, _ in self.window])
        first, second = np.min(smoothed.reshape(2, len(smoothed) // 2, -1), axis=1)
        changes = float(np.mean(np.abs(np.log((second + self.quiet) / (first + self.quiet))))) > constant
        unmuted = float(np.sum(self.lowest)) > C.UNMUTED * self.quiet * len(self.noise)
        foreground = sum(foreground for _, foreground, _ in self.window)
        return changes and unmuted and foreground > C.FILLED * len(smoothed)

    def raise_to(self, minimum: Signal) -> None:
        """Raise noise and minima to those of a steady noise, though not above the smoothed power."""
        self.noise = np.maximum(self.noise, np.minimum(self.smooth, C.STEADY_BIAS**2 * minimum))
        least = np.minimum(self.smooth, minimum)
        self.lowest = np.maximum(self.lowest, least)
        self.lowest_next = np.maximum(self.lowest_next, least)


class Bands:
    """Powers of a block by band; echo with its margin."""

    def __init__(self, bins: int) -> None:
        edges = [C.BANDS_FIRST_BIN]
        while edges[-1] < min(bins, C.BANDS_LAST_BIN):
            at = edges[-1]
            edges.append(min(bins, C.BANDS_LAST_BIN, at + (4 if at < 20 else at // 5)))
        self.slices = [slice(low, high) for low, high in itertools.pairwise(edges)]
        self.bins = slice(edges[0], edges[-1])
        self.smooth_input = np.zeros(len(self.slices))
        self.input_power = self.noise_power = self.echo_power = 0.0

    def process(self, power: Signal, noise: Signal, echo: Signal) -> None:
        self.input, self.noise, self.echo = (
            np.array([np.sum(x[band]) for band in self.slices]) for x in (power, noise, C.ECHO_MARGIN * echo)
        )
        self.input_power, self.noise_power, self.echo_power = (
            float(np.sum(x)) for x in (self.input, self.noise, self.echo)
        )
        self.smooth_input += C.BAND_RATE * (self.input - self.smooth_input)


class Steady:
    """Detection of new steady noise in the last TONALITY_PARTS times PART_BLOCKS blocks."""

    def __init__(self, bands: Bands, quiet: float) -> None:
        self.bands, self.quiet = bands, quiet
        self.smooth = np.zeros(len(bands.slices))
        self.tonality = 0.0
        self.last = [np.zeros(bands.bins.stop - bands.bins.start, complex)] * C.TONALITY_LAG
        # of each block: power and smoothed power by band, spectrum, and its product with that of before
        self.window: list[tuple[Signal, Signal, Signal, Signal]] = []

    def _tonality(self, spectra: Signal, products: Signal) -> float:
        """Mean over the bands of the coherence of bins with themselves TONALITY_LAG blocks before."""
        power = np.sum(np.abs(spectra) ** 2, axis=0) + self.quiet
        coherence = np.abs(np.sum(products, axis=0)) ** 2 / power**2
        first = self.bands.bins.start
        return float(
            np.mean([np.mean(coherence[b.start - first : b.stop - first]) for b in self.bands.slices])
        )

    def process(self, spectrum: Signal, floor: NoiseFloor) -> bool:
        """Raise the noise floor at the end of a window of new noise; whether it was."""
        bands, blocks = self.bands, C.TONALITY_PARTS * C.PART_BLOCKS
        power, spectrum = bands.input + self.quiet, spectrum[bands.bins]
        self.smooth = follow_each(self.smooth, power)
        self.window.append((power, self.smooth, spectrum, spectrum * np.conj(self.last[0])))
        self.last = [*self.last[1:], spectrum]
        if bands.echo_power > C.MOST_ECHO * bands.input_power:
            self.window.clear()
            self.tonality = 0.0
        if len(self.window) < blocks:
            return False
        powers, smoothed, spectra, products = (np.array(part) for part in zip(*self.window, strict=True))
        del self.window[: C.PART_BLOCKS]
        self.tonality = self._tonality(spectra, products)
        lowest = np.min(smoothed, axis=0)
        moved = float(np.mean(np.log(np.mean(powers, axis=0) / lowest)))
        sums = np.sum(powers, axis=0)
        risen = np.minimum(np.log(C.STEADY_BIAS * lowest / (bands.noise + self.quiet)), C.MOST_RISEN)
        risen = np.mean(np.where(sums > C.LEAKAGE * np.max(sums), risen, 0.0))
        if np.exp(2.0 * moved) * self.tonality >= C.NOISE_LIKE or risen <= C.RISEN:
            return False
        minimum = floor.smooth / C.STEADY_BIAS**2
        for band, low in zip(bands.slices, lowest, strict=True):
            minimum[band] = low / (band.stop - band.start)
        floor.raise_to(minimum)
        return True


class NearEnd:
    """Near-end speech over some 100 ms, and what is left alone for it."""

    def __init__(self, bands: Bands, quiet: float) -> None:
        self.bands, self.quiet = bands, quiet
        self.activity = self.protection = self.clear_speech = self.quiet_room = self.foreground = 0.0

    def _excess(self, echo_share: float) -> float:
        expected = self.bands.noise_power + echo_share * self.bands.echo_power + self.quiet
        return float(np.log10(1.0 + self.bands.input_power / expected))

    def protect(self, presence: float, canceller_confidence: float) -> None:
        clear = presence * ramp(self._excess(C.MASKED_ECHO), C.CLEAR_LOW, C.CLEAR_HIGH)
        self.activity = follow(self.activity, clear, C.ACTIVITY_ATTACK_RATE, C.ACTIVITY_RELEASE_RATE)
        self.protection = canceller_confidence * ramp(self.activity, C.PROTECTED_LOW, C.PROTECTED_HIGH)

    def process(self, mask_speech: float) -> None:
        """mask_speech: a valid mask's probability of speech, or 0."""
        speech, excess = ramp(mask_speech, C.MASK_SPEECH_LOW, 1.0), self._excess(1.0)
        clear = speech * ramp(excess, C.CLEAR_LOW, C.CLEAR_HIGH)
        self.clear_speech = max(clear, C.CLEAR_DECAY * self.clear_speech)
        quiet = speech * ramp(excess, C.QUIET_LOW, C.QUIET_HIGH)
        self.quiet_room = follow(self.quiet_room, quiet, C.QUIET_ATTACK_RATE, C.QUIET_RELEASE_RATE)

    @property
    def echo_margin(self) -> float:
        return C.ECHO_MARGIN + self.protection * (C.PROTECTED_ECHO_MARGIN - C.ECHO_MARGIN)


class Clatter:
    """Count of short broadband sounds that are no speech, each a pulse of up to 60 ms."""

    def __init__(self) -> None:
        self.band_excess, self.log_power = np.zeros(C.CLATTER_BLOCKS), np.zeros(C.CLATTER_BLOCKS)
        self.in_click = False
        self.clicks = 0.0

    def process(self, band_excess: float, log_power: float, no_speech: float) -> float:
        """Return the degree of clatter, 0..1."""
        self.band_excess = np.append(self.band_excess[1:], band_excess)
        self.log_power = np.append(self.log_power[1:], log_power)
        middle = C.CLATTER_BLOCKS // 2
        pulses = [x[middle] - max(x[0], x[-1]) for x in (self.band_excess, self.log_power)]
        begins = min(pulses) > C.CLICK and not self.in_click
        self.in_click = min(pulses) > C.CLICK
        self.clicks = C.CLICK_DECAY * self.clicks + (no_speech if begins else 0.0)
        return ramp(self.clicks, C.CLICKS_LOW, C.CLICKS_HIGH)


class Suppressor:
    def __init__(self, bins: int, window_power: float, attenuation_db: float) -> None:
        self.quiet, self.least_comfort = C.QUANTISATION_POWER * window_power, C.LEAST_COMFORT * window_power
        self.configure(attenuation_db)
        self.gain_min = self.gain_min_target
        self.floor, self.bands = NoiseFloor(bins, self.quiet), Bands(bins)
        self.steady, self.near_end = Steady(self.bands, self.quiet), NearEnd(self.bands, self.quiet)
        self.clatter = Clatter()
        self.speech_power = np.zeros(bins)
        self.speech_probability = 0.0

    @property
    def noise(self) -> Signal:
        return self.floor.noise

    def configure(self, attenuation_db: float) -> None:
        self.gain_min_target = 10.0 ** (-attenuation_db / 20.0)

    def process(
        self,
        spectrum: Signal,
        echo: Signal,
        mask: tuple[Signal, Signal, float] | None = None,
        canceller_confidence: float = 0.0,
        echo_confidence: float = 1.0,
    ) -> tuple[Signal, Signal]:
        """Return gain, and amplitude of comfort noise (0: none), by bin.

        mask: gains for speech and for all but echo, on top of the statistical one, and the probability of
        speech; canceller_confidence: the canceller has converged; echo_confidence: the residual echo is not
        far above the expected.
        """
        power = np.abs(spectrum) ** 2
        band_excess = self._track(spectrum, power, echo)
        self.gain_min += C.GAIN_MIN_RATE * (self.gain_min_target - self.gain_min)
        if abs(self.gain_min - self.gain_min_target) < C.GAIN_MIN_REACHED:
            self.gain_min = self.gain_min_target
        near_end, presence = self.near_end, self.speech_probability * (mask[2] if mask else 1.0)
        near_end.protect(presence, canceller_confidence)
        gain = self._statistical(power, near_end.echo_margin * echo, mask is not None)
        mask_valid = mask is not None and self.floor.blocks >= C.FIRST_MASK_BLOCKS
        near_end.process(mask[2] if mask and mask_valid else 0.0)
        foreground = self._foreground(power, echo, band_excess, mask[2] if mask else 1.0)
        near_end.foreground = foreground * echo_confidence
        noise_share = self.noise / (near_end.echo_margin * echo + self.noise)
        speech = max(0.0, presence - C.SPEECH_BY_CHANCE) / (1.0 - C.SPEECH_BY_CHANCE)
        gain *= 1.0 - (1.0 - noise_share) * (1.0 - near_end.protection) * (1.0 - speech)
        if mask and self.gain_min < 1.0:
            self._correct_bands(gain, power)
        gain, echo_free = self._combine(gain, np.sqrt(noise_share), power, echo, mask, mask_valid)
        least = np.minimum(self.least_comfort, power)
        wanted = np.where(echo_free < C.ECHO_REPLACED, self.gain_min**2 * self.noise, 0.0)
        missing = np.maximum(wanted, least) - gain**2 * power
        return gain, np.sqrt(C.SPREAD * np.maximum(missing, 0.0))

    def _track(self, spectrum: Signal, power: Signal, echo: Signal) -> float:
        """Follow noise and speech presence; return the bands' mean excess over the expected power."""
        bands, near_end, steady = self.bands, self.near_end, self.steady
        self.floor.process(power, echo, self.speech_probability, near_end, steady.tonality, bands)
        bands.process(power, self.noise, echo)
        if steady.process(spectrum, self.floor):
            near_end.quiet_room = 0.0
        expected = C.NOISE_MARGIN * bands.noise + bands.echo
        band_excess = float(np.mean(np.log1p(bands.input / expected)))
        vote = ramp(band_excess, C.NO_SPEECH_EXCESS, C.SPEECH_EXCESS)
        self.speech_probability = follow(self.speech_probability, vote, C.ATTACK_RATE, C.RELEASE_RATE)
        return band_excess

    def _statistical(self, power: Signal, expected_echo: Signal, masked: bool) -> Signal:
        """Return the log-spectral amplitude gain."""
        noise = self.noise if self.gain_min < 1.0 else 0.0
        disturbance = noise + expected_echo + self.quiet * C.TINY
        posterior = power / disturbance
        noise_directed = C.DECISION_DIRECTED
        if masked:
            reduction = C.QUIET_ROOM_LESS_DIRECTED * self.near_end.quiet_room
            noise_directed = C.MASKED_DECISION_DIRECTED - reduction
        directed = noise_directed + (C.DECISION_DIRECTED - noise_directed) * expected_echo / disturbance
        prior = directed * self.speech_power / disturbance
        prior = prior + (1.0 - directed) * np.maximum(posterior - 1.0, 0.0)
        wiener = prior / (1.0 + prior)
        gain = np.minimum(1.0, wiener * np.exp(0.5 * exp1(np.maximum(wiener * posterior, 1e-6))))
        self.speech_power = gain**2 * power
        return gain

    def _foreground(
        self, power: Signal, echo: Signal, band_excess: float, speech_probability: float
    ) -> float:
        """Degree to which the block stands clear of noise and residual echo in a room without clatter."""
        log_power = float(np.log(self.bands.input_power + self.bands.noise_power + self.quiet))
        clatter = self.clatter.process(band_excess, log_power, 1.0 - speech_probability)
        expected = np.sum((self.noise + C.ECHO_MARGIN * echo)[C.AUDIBLE_FIRST_BIN :]) + self.quiet
        excess = np.log10(1.0 + np.sum(power[C.AUDIBLE_FIRST_BIN :]) / expected)
        return ramp(float(excess), C.FOREGROUND_LOW, C.FOREGROUND_HIGH) * (1.0 - clatter)

    def _correct_bands(self, gain: Signal, power: Signal) -> None:
        """Move a gain, in place, towards what spectral subtraction leaves of each band."""
        near_end, bands, tiny = self.near_end, self.bands, self.quiet * C.TINY
        share = C.BAND_SHARE * (1.0 - near_end.protection) * near_end.clear_speech
        share *= (1.0 - near_end.quiet_room) * (1.0 - near_end.foreground)
        expected = bands.noise + bands.echo
        for band, smooth, known in zip(bands.slices, bands.smooth_input, expected, strict=True):
            wanted = max(smooth - C.OVERSUBTRACTION * known, self.gain_min**2 * smooth)
            left = np.sum(gain[band] ** 2 * power[band])
            ratio = np.clip(np.sqrt((wanted + tiny) / (left + tiny)), 1.0 / C.BAND_CHANGE, C.BAND_CHANGE)
            gain[band] = np.minimum(1.0, (1.0 + share * (ratio - 1.0)) * gain[band])

    def _combine(
        self,
        gain: Signal,
        echo_free: Signal,
        power: Signal,
        echo: Signal,
        mask: tuple[Signal, Signal, float] | None,
        mask_valid: bool,
    ) -> tuple[Signal, Signal]:
        """Return the total gain, and the amplitude's share that is no echo."""
        near_end, suppress_noise = self.near_end, self.gain_min < 1.0
        if mask:
            expected = np.maximum(echo - self.quiet, 0.0)
            possible_echo = np.minimum(1.0, C.SURPRISING_ECHO * expected / (power + self.quiet))
            not_echo = 1.0 - possible_echo * (1.0 - near_end.protection) * (1.0 - mask[1])
            echo_free = np.minimum(echo_free, not_echo)
            share = 0.0
            if suppress_noise and mask_valid:
                share = (1.0 - near_end.protection) * (1.0 - near_end.clear_speech)
                share *= (1.0 - near_end.quiet_room) * (1.0 - near_end.foreground)
            gain = gain * (not_echo + share * (mask[0] - not_echo))
        if suppress_noise:
            unspoken = C.MASKED_UNSPOKEN if mask else C.UNSPOKEN
            perhaps = C.MASKED_PERHAPS_SPOKEN if mask else C.PERHAPS_SPOKEN
            non_speech = unspoken + (1.0 - unspoken) * min(1.0, self.speech_probability / perhaps)
            audible = 1.0 - max(near_end.quiet_room, near_end.foreground)
            gain = gain * (1.0 - audible * (1.0 - non_speech))
        return np.maximum(gain, self.gain_min * echo_free), echo_free


class Level:
    """Level of suppression that the signal-to-noise ratio requires."""

    BELOW_DB = (LEVEL.MODERATE_BELOW_DB, LEVEL.HIGH_BELOW_DB, LEVEL.VERY_HIGH_BELOW_DB)

    def __init__(self) -> None:
        self.speech_power = self.noise_power = 0.0
        self.speech_blocks = 0
        self.snr_db = 0.0
        self.level = LEVEL.NS_LEVEL_DEFAULT

    def process(self, power: float, noise: float, echo: float, speech_probability: float) -> int:
        self.noise_power += LEVEL.NOISE_RATE * (noise - self.noise_power)
        if speech_probability > LEVEL.SPEECH and power > LEVEL.CLEAR_OF_ECHO * echo:
            self.speech_blocks += 1
            rate = max(LEVEL.SPEECH_RATE, 1.0 / self.speech_blocks)
            self.speech_power += rate * (max(0.0, power - noise) - self.speech_power)
        if self.speech_blocks < LEVEL.ENOUGH_BLOCKS:
            return self.level
        ratio = (self.speech_power + LEVEL.LEAST_POWER) / (self.noise_power + LEVEL.LEAST_POWER)
        self.snr_db = 10.0 * float(np.log10(ratio))
        if self.level < len(self.BELOW_DB) and self.snr_db < self.BELOW_DB[self.level] - LEVEL.HYSTERESIS_DB:
            self.level += 1
        elif self.level > 0 and self.snr_db > self.BELOW_DB[self.level - 1] + LEVEL.HYSTERESIS_DB:
            self.level -= 1
        return self.level
