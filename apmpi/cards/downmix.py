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

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

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
FULL_SCALE = 32767


class Downmix:
    """State of the downmix of one signal; for one thread.

    finding   the treatment of the channels and its reason, as a sentence; "" for the plain mean
    """

    def __init__(self, rate_hz: int, numbers: Sequence[int], *, every: bool = False) -> None:
        """numbers: of the channels, for `finding`
        every: average all channels with their signs aligned, as music needs it
        """
        self.finding = ""
        self._numbers = numbers
        self._every = every
        count = len(numbers)
        self._step = max(rate_hz // COMPARED_AT_HZ, 1)
        self._kept = 0  # channel whose polarity and level the output has
        self._sign = 1.0
        # Sign of each averaged channel, relative to the kept one; 0: not averaged.
        self._alike: NDArray[np.float64] = np.ones(count)
        if not every:
            self._alike[1:] = 0
        self._weights = self._target()
        self._decided = self._begun = False
        self._forget()

    def mix(self, frame: bytes, unprocessed: bytes | None = None) -> bytes:
        """Return the mono int16 frame of an interleaved one.

        unprocessed: the frame before processing, in which channels at full scale are detected
        """
        samples = np.frombuffer(frame, "<i2").reshape(-1, len(self._numbers)).astype(np.float32)
        if unprocessed is not None:
            before = np.frombuffer(unprocessed, "<i2").reshape(samples.shape)
            self._clipped |= (before.max(axis=0) == FULL_SCALE) | (before.min(axis=0) < -FULL_SCALE)
        self._measure(samples)
        weights, self._weights = self._weights, self._target()
        if np.array_equal(weights, self._weights):
            mixed = samples @ self._weights
        else:
            fade = np.linspace(0, 1, len(samples), dtype=np.float32)[:, np.newaxis]
            mixed = (samples * (weights + fade * (self._weights - weights))).sum(axis=1)
        return bytes(np.clip(np.rint(mixed), -FULL_SCALE - 1, FULL_SCALE).astype("<i2").tobytes())

    def _target(self) -> NDArray[np.float32]:
        weights: NDArray[np.float32] = self._sign * self._alike / np.abs(self._alike).sum()
        return weights.astype(np.float32)

    def _forget(self) -> None:
        count = len(self._numbers)
        self._covariance = np.zeros((count, count))
        self._parts: list[NDArray[np.float64]] = []
        self._clipped = np.zeros(count, bool)
        self._frames = 0

    def _measure(self, samples: NDArray[np.float32]) -> None:
        """Adds the covariance of the first differences, whose spectrum is about white for speech."""
        band = sum((samples[k :: self._step] for k in range(1, self._step)), samples[:: self._step])
        rises = band[1:] - band[:-1]
        if self._frames % PART_FRAMES == 0:
            self._parts.append(np.zeros(len(self._numbers)))
        covariance = (rises.T @ rises).astype(np.float64) / (len(rises) * self._step**2)
        self._covariance += covariance
        self._parts[-1] += covariance.diagonal()
        self._frames += 1
        if not self._begun and covariance.any():
            self._begun = True
            self._choose_quickly(covariance)
        elif self._frames == WINDOW_FRAMES:
            self._decide()
            self._forget()
        elif not self._decided and self._frames % PART_FRAMES == 0:
            self._choose_quickly(self._covariance)

    def _choose_quickly(self, covariance: NDArray[np.float64]) -> None:
        """Decides until the first decision on speech: for the loudest channel, or on the signs of all."""
        power = covariance.diagonal()
        if self._every:
            self._align(covariance)
        elif power.max() > SNR_BETTER * power[self._kept]:
            self._keep(int(power.argmax()), covariance)
            self._alike[:] = 0
            self._alike[self._kept] = 1

    def _decide(self) -> None:
        covariance = self._covariance / self._frames
        if not self._every:
            parts = np.array(self._parts) / PART_FRAMES
            floor = parts.min(axis=0)
            snr = np.minimum((parts.mean(axis=0) - floor) / (floor + ROUNDING_POWER), SNR_MAX)
            unclipped = np.where(self._clipped, 0.0, snr)
            usable = unclipped if unclipped.max() >= SNR_MIN else snr
            if usable.max() < SNR_MIN:
                return
            if usable.max() > SNR_BETTER * usable[self._kept]:
                self._keep(int(usable.argmax()), covariance)
        self._decided = True
        self._align(covariance)
        self._describe()

    def _keep(self, channel: int, covariance: NDArray[np.float64]) -> None:
        """Keeps another channel, in the polarity that the output has."""
        relative = -1.0 if covariance[self._kept, channel] < 0 else 1.0
        self._alike *= relative
        self._sign *= relative
        self._kept = channel

    def _align(self, covariance: NDArray[np.float64]) -> None:
        shared, power = covariance[self._kept], covariance.diagonal()
        largest = np.maximum(power, power[self._kept])
        likeness = np.divide(shared, largest, out=np.zeros_like(shared), where=largest > 0)
        limit = np.where(self._alike != 0, ALIKE_UNTIL, ALIKE_FROM)
        if self._every:
            limit = np.where(self._alike < 0, ALIKE_UNTIL, ALIKE_FROM)
            self._alike = np.where(likeness < -limit, -1.0, 1.0)
        else:
            self._alike = np.where(np.abs(likeness) > limit, np.sign(likeness), 0.0)
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
