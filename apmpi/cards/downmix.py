"""Downmix of several channels to mono, without the cancellation that a plain mean can cause.

The mean of channels of opposite polarity is silence, and that of channels with a delay between them is a comb
filter. So channels are aligned in sign, and averaged only if they are alike; of microphones that are not
alike, the better one is used. Likeness is decided once in WINDOW_FRAMES from the covariance of the channels;
a change is cross-faded over one frame.

With a channel i of the level a relative to the channel r that is kept, a correlation rho between them, and
independent noise of equal power in both, averaging changes the signal's power by (1 + a^2 + 2 a rho) / 4 and
the noise's by 1 / 2. For equal levels the signal loses 2 / (1 + rho), unevenly over frequency, and the
signal-to-noise ratio gains 1 + rho: the gain exceeds the loss from rho = sqrt(2) - 1 on. For rho = 1 and
a < 1 there is a gain from a = sqrt(2) - 1 on. So the smaller one of rho a and rho / a decides.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from apmpi._cards import Mixer
from apmpi.units import FRAMES_PER_S

# Interval between decisions, 1 s: several syllables.
WINDOW_FRAMES = FRAMES_PER_S
# Parts of a window, 100 ms: the smallest power of a part, between syllables, is the noise floor.
PART_FRAMES = FRAMES_PER_S // 10
# Likeness above which channels are averaged, and down to which they stay so: hysteresis about the break-even.
# The mean loses 0.7 dB at 1 / sqrt(2).
ALIKE_FROM, ALIKE_UNTIL = 2**-0.5, 2**0.5 - 1
# Rate at which channels are compared, by averaging: the band of speech.
COMPARED_AT_HZ = 16000
# Noise power of a difference of two samples rounded to 16 bits, 1/12 each.
ROUNDING_POWER = 1 / 6
# Smallest signal-to-noise ratio (power) of a usable channel, 0 dB: below it there is only noise.
SNR_MIN = 1.0
# Ratio of two channels' signal-to-noise ratios from which the better one replaces the other, 3 dB: a change
# is audible.
SNR_BETTER = 2.0
# Signal-to-noise ratio from which channels count as equal, 30 dB: speech masks the noise.
SNR_MAX = 1000.0

Covariance = list[list[float]]


class Downmix:
    """State of the downmix of one signal; for one thread. Samples are mixed in native/cards/downmix.c.

    finding   the treatment of the channels and its reason, as a sentence; "" for the plain mean
    """

    def __init__(self, rate_hz: int, numbers: Sequence[int], *, every: bool = False) -> None:
        """numbers: of the channels, for `finding`
        every: average all channels with their signs aligned, as music needs it
        """
        self.finding = ""
        self._numbers = numbers
        self._every = every
        self._kept = 0  # channel whose polarity and level the output has
        self._sign = 1.0
        # Sign of each averaged channel, relative to the kept one; 0: not averaged.
        self._alike = [1.0 if every or channel == 0 else 0.0 for channel in range(len(numbers))]
        self._mixer = Mixer(max(rate_hz // COMPARED_AT_HZ, 1), self._weights())
        self._decided = self._begun = False
        self._parts: list[
            list[float]
        ] = []  # power of each channel, summed since forget(), at each part's end

    def mix(self, frame: bytes, unprocessed: bytes | None = None) -> bytes:
        """Return the mono int16 frame of an interleaved one.

        unprocessed: the frame before processing, in which channels at full scale are detected
        """
        mixer = self._mixer
        mixer.measure(frame, unprocessed)
        if not self._begun or mixer.frames % PART_FRAMES == 0:
            self._look()
            mixer.fade_to(self._weights())
        return mixer.mix(frame)

    def _weights(self) -> list[float]:
        total = sum(map(abs, self._alike))
        return [self._sign * alike / total for alike in self._alike]

    def _look(self) -> None:
        """Decides on the channels with the first sound, then after each part until the first decision on
        speech, then once in a window."""
        mixer = self._mixer
        if mixer.frames % PART_FRAMES == 0:
            self._parts.append(_power(mixer.sum))
        if not self._begun and any(_power(mixer.last)):
            self._begun = True
            self._choose_quickly(mixer.last)
        elif mixer.frames == WINDOW_FRAMES:
            self._decide()
            mixer.forget()
            self._parts.clear()
        elif not self._decided and mixer.frames % PART_FRAMES == 0:
            self._choose_quickly(mixer.sum)

    def _choose_quickly(self, covariance: Covariance) -> None:
        """Decides until the first decision on speech: for the loudest channel, or on the signs of all."""
        power = _power(covariance)
        if self._every:
            self._align(covariance)
        elif max(power) > SNR_BETTER * power[self._kept]:
            self._keep(power.index(max(power)), covariance)
            self._alike = [float(channel == self._kept) for channel in range(len(power))]

    def _decide(self) -> None:
        covariance = self._mixer.sum
        if not self._every:
            snr = self._snr()
            usable = [0.0 if clips else ratio for ratio, clips in zip(snr, self._mixer.clipped, strict=True)]
            if max(usable) < SNR_MIN:
                usable = snr
            if max(usable) < SNR_MIN:
                return
            if max(usable) > SNR_BETTER * usable[self._kept]:
                self._keep(usable.index(max(usable)), covariance)
        self._decided = True
        self._align(covariance)
        self._describe()

    def _snr(self) -> list[float]:
        """Return the signal-to-noise ratio of each channel in the window, above its quietest part."""
        before = [[0.0] * len(self._numbers), *self._parts]
        parts = [
            [(end - begin) / PART_FRAMES for begin, end in zip(*ends, strict=True)]
            for ends in pairwise(before)
        ]
        ratios = []
        for powers in zip(*parts, strict=True):
            floor = min(powers)
            ratios.append(min((sum(powers) / len(powers) - floor) / (floor + ROUNDING_POWER), SNR_MAX))
        return ratios

    def _keep(self, channel: int, covariance: Covariance) -> None:
        """Keeps another channel, in the polarity that the output has."""
        relative = -1.0 if covariance[self._kept][channel] < 0 else 1.0
        self._alike = [relative * alike for alike in self._alike]
        self._sign *= relative
        self._kept = channel

    def _align(self, covariance: Covariance) -> None:
        shared, power = covariance[self._kept], _power(covariance)
        for channel, alike in enumerate(self._alike):
            largest = max(power[channel], power[self._kept])
            likeness = shared[channel] / largest if largest > 0 else 0.0
            sign = math.copysign(1.0, likeness)
            if self._every:
                self._alike[channel] = -1.0 if likeness < -(ALIKE_UNTIL if alike < 0 else ALIKE_FROM) else 1.0
            else:
                limit = ALIKE_UNTIL if alike != 0 else ALIKE_FROM
                self._alike[channel] = sign if abs(likeness) > limit else 0.0
        self._alike[self._kept] = 1.0

    def _describe(self) -> None:
        kept = self._numbers[self._kept]
        against = [number for number, sign in zip(self._numbers, self._alike, strict=True) if sign < 0]
        without = [number for number, sign in zip(self._numbers, self._alike, strict=True) if sign == 0]
        found = []
        if against:
            found.append(f"{_channels(against)} opposite in polarity to channel {kept} and aligned with it")
        if without:
            like = f"not like channel {kept} in delay, level or source"
            found.append(f"{_channels(without)} left out of the mono sound, {like}")
        self.finding = ", ".join(found)


def _channels(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"channel {numbers[0]} is"
    return f"channels {', '.join(map(str, numbers[:-1]))} and {numbers[-1]} are"


def _power(covariance: Covariance) -> list[float]:
    """Return the diagonal: the power of each channel."""
    return [row[channel] for channel, row in enumerate(covariance)]
