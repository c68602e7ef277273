"""Track: a queue of samples from the event loop to the thread that plays, in frames of 10 ms."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from apmpi.api.apm import Frame
from apmpi.api.frame import AudioFrame
from apmpi.cards.resampler import Resampler
from apmpi.units import FRAMES_PER_S

# Frames that a track waits from its first samples until it is played: jitter buffer for network and event
# loop. Each time the track underruns, the wait is doubled.
TRACK_DELAY_FRAMES, TRACK_DELAY_MAX_FRAMES = 3, 12
# Queue of a track, 200 ms. Beyond it a source that can wait is made to wait; one that runs in real time
# loses its oldest frame.
TRACK_AHEAD_FRAMES = 20
# libsamplerate's range is wider; rates outside of this one belong to no sound.
FRAME_RATE_MIN_HZ, FRAME_RATE_MAX_HZ = 1000, 384_000

Samples = npt.NDArray[np.int16]


class Track:
    """One source of sound for the player.

    origin      the object that add_track() was given; kept, so that its id is not given to another one
    task        copies from the source into this queue; None for the player's own track
    underruns   number of times that the queue was empty before the end of the source
    dropped     frames lost because the source was faster than the card
    """

    def __init__(self, origin: Any, rate_hz: int, channels: int, loop: asyncio.AbstractEventLoop) -> None:
        self.origin = origin
        self.underruns = self.dropped = 0
        self.task: asyncio.Task[None] | None = None
        self._rate_hz = rate_hz
        self._channels = channels
        self._channel_counts = "1" if channels == 1 else f"1 or {channels}"
        self._loop = loop
        self._frame_samples = rate_hz // FRAMES_PER_S
        self._rest: Samples = np.zeros((0, channels), np.int16)  # less than a frame
        self._resampler: Resampler | None = None
        self._resampled_from_hz = rate_hz
        self._queue: deque[Samples] = deque()
        self._room = asyncio.Event()
        self._waiting = False
        self._ended = False
        self._delay_frames = TRACK_DELAY_FRAMES
        self._held_frames = 0  # frames for which the track has waited with samples in the queue

    # -- event loop

    async def put(self, frame: Frame, *, waits: bool) -> None:
        """Queues a frame of any length; `waits` until there is room, or drops the oldest frames.

        Raises:
            RuntimeError: it does not fit the player, or holds fewer samples than it states.
            TypeError: its samples are neither int16 nor bytes.
        """
        if not FRAME_RATE_MIN_HZ <= frame.sample_rate <= FRAME_RATE_MAX_HZ:
            raise RuntimeError(
                f"play: frame at {frame.sample_rate} Hz, "
                f"expected {FRAME_RATE_MIN_HZ} to {FRAME_RATE_MAX_HZ} Hz"
            )
        if frame.num_channels not in (1, self._channels):
            raise RuntimeError(
                f"play: frame has {frame.num_channels} channels, expected {self._channel_counts}"
            )
        try:
            samples: Samples = AudioFrame(
                memoryview(frame.data), frame.sample_rate, frame.num_channels, frame.samples_per_channel
            ).to_ndarray()
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else RuntimeError
            raise kind(f"play: {error}") from None
        samples = np.broadcast_to(samples, (len(samples), self._channels))
        if frame.sample_rate != self._rate_hz:
            samples = self._resampled(samples, frame.sample_rate)
        samples = np.concatenate([self._rest, samples])
        whole = len(samples) // self._frame_samples * self._frame_samples
        for at in range(0, whole, self._frame_samples):
            await self._enqueue(samples[at : at + self._frame_samples], waits)
        self._rest = samples[whole:]

    def _resampled(self, samples: Samples, rate_hz: int) -> Samples:
        if self._resampler is None or rate_hz != self._resampled_from_hz:
            self._resampler = Resampler(rate_hz, self._rate_hz, self._channels)
            self._resampled_from_hz = rate_hz
        resampled = self._resampler.process(samples.tobytes())
        return np.frombuffer(resampled, np.int16).reshape(-1, self._channels)

    async def _enqueue(self, samples: Samples, waits: bool) -> None:
        while waits and len(self._queue) >= TRACK_AHEAD_FRAMES and not self._ended:
            self._room.clear()
            self._waiting = True
            await self._room.wait()
        self._queue.append(samples)
        if len(self._queue) > TRACK_AHEAD_FRAMES:
            self._queue.popleft()
            self.dropped += 1

    def end(self) -> None:
        """Ends the track: the last samples are padded with silence to a frame, and put() waits no longer."""
        if self._resampler:  # its filter holds the last samples
            silence = np.zeros((self._resampled_from_hz // FRAMES_PER_S, self._channels), np.int16)
            tail = self._resampled(silence, self._resampled_from_hz)
            self._rest = np.concatenate([self._rest, tail])[: self._frame_samples]
        if len(self._rest):
            last = np.zeros((self._frame_samples, self._channels), np.int16)
            last[: len(self._rest)] = self._rest
            self._queue.append(last)
        self._ended = True
        self._room.set()

    # -- audio thread

    def take(self) -> Samples | None:
        """Return the next frame as (samples, channels), None for silence."""
        if not self._queue:
            if self._held_frames and not self._ended:
                self.underruns += 1
                self._delay_frames = min(2 * self._delay_frames, TRACK_DELAY_MAX_FRAMES)
            self._held_frames = 0
            return None
        if self._held_frames < self._delay_frames:
            self._held_frames += 1
            return None
        samples = self._queue.popleft()
        if self._waiting:
            self._waiting = False
            with contextlib.suppress(RuntimeError):  # the event loop is closed, and with it what waited
                self._loop.call_soon_threadsafe(self._room.set)
        return samples
