"""Noise and residual-echo suppression by one gain per bin.

Noise: T. Gerkmann, R. Hendriks, IEEE TASLP 20 (2012), lifted by the minimum of the last seconds (R. Martin,
IEEE TSAP 9 (2001)). Gain: Y. Ephraim, D. Malah, IEEE Trans. ASSP 33 (1985), log-spectral amplitude, prior
decision-directed.
"""

from __future__ import annotations

import itertools

import numpy as np
from reference.signals import Signal
from scipy.special import exp1

PRIOR_SNR = 31.6
NOISE_RATE, OUTLIER = 0.1, 3.0
FALL_RATE, RISE_RATE = 0.5, 0.2
MINIMUM_BIAS, MINIMUM_BLOCKS, FIRST_MINIMUM_BLOCKS = 3.0, 400, 20
CLEAR_BLOCKS = 370
QUIET_POWER = 1e-10
DECISION_DIRECTED, MASKED_NOISE_DIRECTED = 0.95, 0.9
COMFORT_SPREAD, ECHO_REPLACED, LEAST_COMFORT = 1.5, 0.7, 1e-8
ECHO_CAUTION, SPARING_CAUTION, SURPRISING_ECHO, UNSPOKEN, PERHAPS_SPOKEN = 2.0, 0.1, 30.0, 0.25, 0.25
TALK_RISE, TALK_FALL, PERHAPS_TALK, SURE_TALK, HIDDEN = 0.1, 0.007, 0.2, 0.6, 0.33
MASKED_UNSPOKEN, MASKED_PERHAPS_SPOKEN = 0.5, 0.1
BARELY_CLEAR, CLEAR, HARDLY_SPEECH, CLEAR_DECAY, FIRST_MASK_BLOCKS = 0.7, 1.8, 0.8, 0.98, 100
BARELY_QUIET, QUIET, QUIET_RISE, QUIET_FALL = 2.6, 3.2, 0.1, 0.005
HELD_STILL, QUIETLY_LESS_DIRECTED = 0.9, 0.08
BAND_RATE, OVERSUBTRACTION, BAND_SHARE, BAND_CHANGE = 0.5, 1.5, 0.65, 2.0
STEADY_BLOCKS, STEADY, STEADY_BIAS, RISEN = 40, 1.2, 2.0, 0.7
MOST_RISEN, LEAKS, FLUCTUATES, ROUGHER = 2.1, 1e-3, 0.3, 1.1
BANDS_FIRST_BIN, BANDS_LAST_BIN = 4, 140
BARELY_DISTINCT, DISTINCT, AUDIBLE_FIRST_BIN = 2.2, 2.6, 2
CLICK_BLOCKS, CLICK, CLICK_DECAY, FEW_CLICKS, MANY_CLICKS = 7, 2.3, 0.995, 1.0, 2.0
FLOOR_RATE, FLOOR_REACHED = 0.1, 1e-3
LEVEL_DB, DEFAULT_LEVEL = (6.0, 12.0, 18.0, 21.0), 2
SPEAKS, CLEAR_OF_ECHO, ENOUGH_BLOCKS = 0.5, 4.0, 50
SNR_SPEECH_RATE, SNR_NOISE_RATE, LEAST_POWER = 0.005, 0.02, 1e-9
EDGE_DB, HOLD_DB = (30.0, 20.0, 10.0), 2.0
NOISE_MARGIN, NO_SPEECH_VOTE, SPEECH_VOTE = 2.0, 0.5, 1.5
SPEECH_BY_CHANCE, ATTACK_RATE, RELEASE_RATE = 0.08, 0.7, 0.2


def ramp(x: float, low: float, high: float) -> float:
    return float(np.clip((x - low) / (high - low), 0.0, 1.0))


class Clatter:
    """Counts short broadband sounds that are no speech: each a pulse of up to 60 ms."""

    def __init__(self) -> None:
        self.breadth, self.loudness = np.zeros(CLICK_BLOCKS), np.zeros(CLICK_BLOCKS)
        self.in_click = False
        self.clicks = 0.0

    def process(self, breadth: float, loudness: float, no_speech: float) -> float:
        """0..1: how much the room clatters."""
        self.breadth = np.append(self.breadth[1:], breadth)
        self.loudness = np.append(self.loudness[1:], loudness)
        pulses = [x[CLICK_BLOCKS // 2] - max(x[0], x[-1]) for x in (self.breadth, self.loudness)]
        begins = min(pulses) > CLICK and not self.in_click
        self.in_click = min(pulses) > CLICK
        self.clicks = CLICK_DECAY * self.clicks + (no_speech if begins else 0.0)
        return ramp(self.clicks, FEW_CLICKS, MANY_CLICKS)


class Suppressor:
    def __init__(self, bins: int, window_power: float, attenuation_db: float) -> None:
        self.bins = bins
        self.quiet, self.least_comfort = QUIET_POWER * window_power, LEAST_COMFORT * window_power
        self.configure(attenuation_db)
        self.floor_gain = self.floor_wanted
        self.noise = np.full(bins, self.quiet)
        self.smooth, self.speech = np.zeros(bins), np.zeros(bins)
        self.lowest, self.lowest_next = np.full(bins, np.inf), np.full(bins, np.inf)
        self.clear_blocks = np.zeros(bins)
        self.block = 0
        edges = [BANDS_FIRST_BIN]
        while edges[-1] < min(bins, BANDS_LAST_BIN):
            at = edges[-1]
            edges.append(min(bins, BANDS_LAST_BIN, at + (4 if at < 20 else at // 5)))
        self.bands = [slice(low, high) for low, high in itertools.pairwise(edges)]
        self.band_smooth, self.band_heard = np.zeros(len(self.bands)), np.zeros(len(self.bands))
        # of each block: power and smoothed power by band; how far bins differ from their past and from
        # their neighbours, and at most could from their past
        self.steady_window: list[tuple[Signal, Signal, Signal]] = []
        self.clatter = Clatter()
        self.breadth = self.distinct = 0.0
        self.speech_probability = self.talk = self.clear_talk = self.quiet_room = self.spared = 0.0

    def configure(self, attenuation_db: float) -> None:
        self.floor_wanted = 10.0 ** (-attenuation_db / 20.0)

    def process(
        self,
        power: Signal,
        echo: Signal,
        mask: tuple[Signal, Signal, float] | None = None,
        trust: float = 0.0,
        echo_confidence: float = 1.0,
    ) -> tuple[Signal, Signal]:
        """Gain, and amplitude of comfort noise (0: none), by bin. mask: gains for speech and for all but
        echo, on top of the statistical one, and whether somebody talks; trust: in the echo canceller;
        echo_confidence: that residual echo is not far above what is expected."""
        judged = slice(BANDS_FIRST_BIN, min(self.bins, BANDS_LAST_BIN))
        neighbours = np.diff(self.smooth, prepend=0.0)
        moves = np.abs([power - self.smooth, neighbours, power + self.smooth])[:, judged].sum(axis=1)
        self._track_noise(power, ECHO_CAUTION * echo)
        heard, noise, feared_bands = (
            np.array([np.sum(x[band]) for band in self.bands])
            for x in (power, self.noise, ECHO_CAUTION * echo)
        )
        self.band_heard += BAND_RATE * (heard - self.band_heard)
        self._find_new_noise(heard, noise, feared_bands, moves)
        self._vote_on_speech(heard, noise, feared_bands)
        self.floor_gain += FLOOR_RATE * (self.floor_wanted - self.floor_gain)
        if abs(self.floor_gain - self.floor_wanted) < FLOOR_REACHED:
            self.floor_gain = self.floor_wanted
        speaks = self.speech_probability * (mask[2] if mask else 1.0)
        heard_power, noise_power, feared_power = (float(np.sum(x)) for x in (heard, noise, feared_bands))
        self._spare_talker(speaks, self._excess(heard_power, noise_power + HIDDEN * feared_power), trust)
        feared = self._caution() * echo
        tiny = self.quiet * 1e-3
        suppress_noise = self.floor_gain < 1.0
        disturbance = (self.noise if suppress_noise else 0.0) + feared + tiny
        posterior = power / disturbance
        noise_directed = DECISION_DIRECTED
        if mask:
            noise_directed = MASKED_NOISE_DIRECTED - QUIETLY_LESS_DIRECTED * self.quiet_room
        directed = noise_directed + (DECISION_DIRECTED - noise_directed) * feared / disturbance
        prior = directed * self.speech / disturbance + (1.0 - directed) * np.maximum(posterior - 1.0, 0.0)
        wiener = prior / (1.0 + prior)
        detail = np.minimum(1.0, wiener * np.exp(0.5 * exp1(np.maximum(wiener * posterior, 1e-6))))
        self.speech = detail**2 * power
        self._follow_talker(mask[2] if mask else None, self._excess(heard_power, noise_power + feared_power))
        self._find_distinct(power, echo, heard_power + noise_power, mask[2] if mask else None)
        self.distinct *= echo_confidence
        # what is residual echo goes down to the floor unless somebody speaks here
        noise_share = self.noise / (feared + self.noise)
        rest = np.sqrt(noise_share)
        surely = max(0.0, speaks - SPEECH_BY_CHANCE) / (1.0 - SPEECH_BY_CHANCE)
        gain = detail * (1.0 - (1.0 - noise_share) * (1.0 - self.spared) * (1.0 - surely))
        if mask and suppress_noise:
            self._even_out(gain, power, noise + feared_bands)
        if mask:
            told = np.maximum(echo - self.quiet, 0.0)
            possible_echo = np.minimum(1.0, SURPRISING_ECHO * told / (power + self.quiet))
            not_echo = 1.0 - possible_echo * (1.0 - self.spared) * (1.0 - mask[1])
            rest = np.minimum(rest, not_echo)
            share = 0.0
            if suppress_noise and self.block >= FIRST_MASK_BLOCKS:
                share = (1.0 - self.spared) * (1.0 - self.clear_talk) * (1.0 - self.quiet_room)
                share *= 1.0 - self.distinct
            gain = gain * (not_echo + share * (mask[0] - not_echo))
        if suppress_noise:
            unspoken = MASKED_UNSPOKEN if mask else UNSPOKEN
            perhaps = MASKED_PERHAPS_SPOKEN if mask else PERHAPS_SPOKEN
            chance = unspoken + (1.0 - unspoken) * min(1.0, self.speech_probability / perhaps)
            gain = gain * (chance + max(self.quiet_room, self.distinct) * (1.0 - chance))
        gain = np.maximum(gain, self.floor_gain * rest)
        least = np.minimum(self.least_comfort, power)
        floor = np.where(rest < ECHO_REPLACED, self.floor_gain**2 * self.noise, 0.0)
        missing = np.maximum(floor, least) - gain**2 * power
        return gain, np.sqrt(COMFORT_SPREAD * np.maximum(missing, 0.0))

    def _caution(self) -> float:
        return ECHO_CAUTION + self.spared * (SPARING_CAUTION - ECHO_CAUTION)

    def _excess(self, heard: float, explained: float) -> float:
        return float(np.log10(1.0 + heard / (explained + self.quiet)))

    def _follow_talker(self, speech_probability: float | None, excess: float) -> None:
        """How clearly somebody lately talked, by a mask, and whether in a quiet room."""
        speech = 0.0
        if speech_probability is not None and self.block >= FIRST_MASK_BLOCKS:
            speech = ramp(speech_probability, HARDLY_SPEECH, 1.0)
        self.clear_talk = max(speech * ramp(excess, BARELY_CLEAR, CLEAR), CLEAR_DECAY * self.clear_talk)
        now = speech * ramp(excess, BARELY_QUIET, QUIET)
        self.quiet_room += (QUIET_RISE if now > self.quiet_room else QUIET_FALL) * (now - self.quiet_room)

    def _find_distinct(
        self, power: Signal, echo: Signal, loudness: float, speech_probability: float | None
    ) -> None:
        """Degree to which the block stands clear of noise and residual echo in a room without clatter."""
        no_speech = 0.0 if speech_probability is None else 1.0 - speech_probability
        clatter = self.clatter.process(self.breadth, float(np.log(loudness + self.quiet)), no_speech)
        explained = np.sum((self.noise + ECHO_CAUTION * echo)[AUDIBLE_FIRST_BIN:]) + self.quiet
        clear = np.log10(1.0 + np.sum(power[AUDIBLE_FIRST_BIN:]) / explained)
        self.distinct = ramp(float(clear), BARELY_DISTINCT, DISTINCT) * (1.0 - clatter)

    def _even_out(self, gain: Signal, power: Signal, explained: Signal) -> None:
        """Towards what spectral subtraction leaves of a band, in place."""
        share = BAND_SHARE * (1.0 - self.spared) * self.clear_talk * (1.0 - self.quiet_room)
        share *= 1.0 - self.distinct
        tiny = self.quiet * 1e-3
        for band, heard, known in zip(self.bands, self.band_heard, explained, strict=True):
            wanted = max(heard - OVERSUBTRACTION * known, self.floor_gain**2 * heard)
            left = np.sum(gain[band] ** 2 * power[band])
            ratio = np.clip(np.sqrt((wanted + tiny) / (left + tiny)), 1.0 / BAND_CHANGE, BAND_CHANGE)
            gain[band] = np.minimum(1.0, (1.0 + share * (ratio - 1.0)) * gain[band])

    def _spare_talker(self, speaks: float, excess: float, trust: float) -> None:
        """Who talked lately, clear of noise and echo, is spared as far as the canceller is trusted."""
        now = speaks * ramp(excess, BARELY_CLEAR, CLEAR)
        self.talk += (TALK_RISE if now > self.talk else TALK_FALL) * (now - self.talk)
        share = (self.talk - PERHAPS_TALK) / (SURE_TALK - PERHAPS_TALK)
        self.spared = trust * float(np.clip(share, 0.0, 1.0))

    def _track_noise(self, power: Signal, echo: Signal) -> None:
        rate = np.where(power > self.smooth, RISE_RATE, FALL_RATE) if self.block else 1.0
        self.smooth = self.smooth + rate * (power - self.smooth)
        posterior = np.pad(power / self.noise, 1, mode="edge")
        mean = (posterior[:-2] + posterior[1:-1] + posterior[2:]) / 3.0
        presence = 1.0 / (1.0 + (1.0 + PRIOR_SNR) * np.exp(-mean * PRIOR_SNR / (1.0 + PRIOR_SNR)))
        rate = NOISE_RATE * (1.0 - self.speech_probability) * (1.0 - HELD_STILL * self.quiet_room)
        step = rate * (1.0 - presence)
        noise = self.noise + step * (np.minimum(power, OUTLIER * self.noise) - self.noise)
        lowest = np.minimum(self.lowest, self.smooth)
        least = MINIMUM_BIAS * lowest if self.block >= FIRST_MINIMUM_BLOCKS else 0.0
        clear = echo <= 0.5 * self.smooth  # of echo: elsewhere nothing is told of the noise
        self.noise = np.where(clear, np.maximum(np.maximum(noise, least), self.quiet), self.noise)
        self.lowest = np.where(clear, lowest, self.lowest)
        self.lowest_next = np.where(clear, np.minimum(self.lowest_next, self.smooth), self.lowest_next)
        self.clear_blocks += clear
        self.block += 1
        if self.block % MINIMUM_BLOCKS == 0:
            # the minimum of few blocks is that of a word, not of the pauses
            self.lowest = np.where(self.clear_blocks >= CLEAR_BLOCKS, self.lowest_next, self.lowest)
            self.lowest_next, self.clear_blocks = np.full(self.bins, np.inf), np.zeros(self.bins)

    def _find_new_noise(self, heard: Signal, noise: Signal, echo: Signal, moves: Signal) -> None:
        """Lift the noise where many bands were steady for a while and hold no tone."""
        now = heard + self.quiet
        rate = np.where(now > self.band_smooth, RISE_RATE, FALL_RATE)
        self.band_smooth = self.band_smooth + rate * (now - self.band_smooth)
        self.steady_window.append((now, self.band_smooth, moves))
        if np.sum(echo) > 0.5 * np.sum(heard):
            self.steady_window.clear()
        if len(self.steady_window) < STEADY_BLOCKS:
            return
        powers, smoothed, moved_by = (np.array(part) for part in zip(*self.steady_window, strict=True))
        self.steady_window.clear()
        lowest = np.min(smoothed, axis=0)
        moved = np.mean(np.log(np.mean(powers, axis=0) / lowest))
        sums = np.sum(powers, axis=0)
        risen = np.minimum(np.log(STEADY_BIAS * lowest / (noise + self.quiet)), MOST_RISEN)
        risen = np.mean(np.where(sums > LEAKS * np.max(sums), risen, 0.0))
        fluctuation, roughness, most = np.sum(moved_by, axis=0)
        tonal = fluctuation < max(ROUGHER * roughness, FLUCTUATES * most)
        if not tonal and moved < STEADY and risen > RISEN:
            floor = self.smooth / STEADY_BIAS**2
            for band, low in zip(self.bands, lowest, strict=True):
                floor[band] = low / (band.stop - band.start)
            self.noise = np.maximum(self.noise, np.minimum(self.smooth, STEADY_BIAS**2 * floor))
            least = np.minimum(self.smooth, floor)
            self.lowest = np.maximum(self.lowest, least)
            self.lowest_next = np.maximum(self.lowest_next, least)
            self.quiet_room = 0.0

    def _vote_on_speech(self, heard: Signal, noise: Signal, echo: Signal) -> None:
        """Bands vote whether more is heard than noise and echo explain."""
        vote = self.breadth = float(np.mean(np.log1p(heard / (NOISE_MARGIN * noise + echo))))
        now = float(np.clip((vote - NO_SPEECH_VOTE) / (SPEECH_VOTE - NO_SPEECH_VOTE), 0.0, 1.0))
        rate = ATTACK_RATE if now > self.speech_probability else RELEASE_RATE
        self.speech_probability += rate * (now - self.speech_probability)


class Level:
    """Which of LEVEL_DB the signal-to-noise ratio asks for."""

    def __init__(self) -> None:
        self.speech_power = self.noise_power = 0.0
        self.heard_blocks = 0
        self.snr_db = 0.0
        self.level = DEFAULT_LEVEL

    def process(self, heard: float, noise: float, echo: float, speech_probability: float) -> int:
        self.noise_power += SNR_NOISE_RATE * (noise - self.noise_power)
        if speech_probability > SPEAKS and heard > CLEAR_OF_ECHO * echo:
            self.heard_blocks += 1
            rate = max(SNR_SPEECH_RATE, 1.0 / self.heard_blocks)
            self.speech_power += rate * (max(0.0, heard - noise) - self.speech_power)
        if self.heard_blocks < ENOUGH_BLOCKS:
            return self.level
        ratio = (self.speech_power + LEAST_POWER) / (self.noise_power + LEAST_POWER)
        self.snr_db = 10.0 * float(np.log10(ratio))
        if self.level < len(EDGE_DB) and self.snr_db < EDGE_DB[self.level] - HOLD_DB:
            self.level += 1
        elif self.level > 0 and self.snr_db > EDGE_DB[self.level - 1] + HOLD_DB:
            self.level -= 1
        return self.level
