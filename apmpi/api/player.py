"""Playback: an open loudspeaker, and the mixer of its tracks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np

from apmpi.api.apm import Frame
from apmpi.api.stream import Stream
from apmpi.api.track import Samples, Track
from apmpi.cards.live import Player
from apmpi.cards.pcm import Capture, Playback
from apmpi.cards.slot import Slot
from apmpi.cards.sync import Follower
from apmpi.errors import EndpointError
from apmpi.units import FRAME_NS

logger = logging.getLogger("apmpi")


class OutputPlayer:
    """An open loudspeaker: plays the sum of its tracks, and of the frames given to play().

    Attributes:
        sample_rate: Hz.
        num_channels: of what is played.
        task: from start() on; ends with the playing, raises RuntimeError if the device failed; cancelled, it
            ends the playing.
    """

    def __init__(
        self,
        slot: Slot[Playback],
        serve: Callable[[SpeakerStream], None],
        loop: asyncio.AbstractEventLoop,
        margin_ns: int,
    ) -> None:
        """`serve` hands the stream to the audio thread."""
        if slot.card is None:
            raise EndpointError(slot.problem)
        self.sample_rate = slot.card.rate_hz
        self.num_channels = slot.card.channels
        self.task: asyncio.Task[None] | None = None
        self._loop = loop
        self._serve = serve
        self._speaker = SpeakerStream(slot, loop, margin_ns, self._mix)
        self._speaker.done.add_done_callback(self._stopped)
        self._tracks: dict[int, Track] = {}
        self._own = self._new_track()
        self._playing = asyncio.Lock()  # frames of concurrent play() calls are not interleaved
        # The tracks that the audio thread mixes: replaced as a whole, never changed.
        self._mixed: tuple[Track, ...] = (self._own,)
        self._silence = np.zeros((slot.card.frame_samples, slot.card.channels), np.int16)
        self._ended_underruns = self._ended_dropped = 0

    @property
    def underruns(self) -> int:
        """Number of times that a track had nothing to play before its end."""
        return self._ended_underruns + sum(track.underruns for track in self._tracks.values())

    @property
    def dropped(self) -> int:
        """Frames of 10 ms left out because a track's real time was faster than the card's."""
        return self._ended_dropped + sum(track.dropped for track in self._tracks.values())

    @property
    def xruns(self) -> int:
        """Number of underruns of the card."""
        return self._speaker.slot.xruns

    @property
    def drift_ppm(self) -> float | None:
        """Speaker clock over microphone clock, by which what is played is resampled; None if both are one
        card's, or there is no microphone."""
        return self._speaker.player.follower.ppm

    async def add_track(self, track: Any) -> None:
        """Adds to what is played: an async iterator of frames, LiveKit's AudioStream, or a LiveKit track.

        Frames have any rate and length, and the player's channel count or one channel. An iterator is
        read while it is less than 200 ms ahead; LiveKit's streams cannot wait and lose what exceeds that.

        Raises:
            ValueError: the track has been added already.
            TypeError: it is none of these.
            RuntimeError: the player is closed, or the device has failed.
        """
        self._raise_if_ended()
        if id(track) in self._tracks:
            raise ValueError(f"Track {getattr(track, 'sid', track)} already added to player")
        stream, closing = track, False
        if not hasattr(track, "__anext__"):
            if hasattr(track, "__aiter__"):
                stream = aiter(track)
            elif hasattr(track, "sid"):
                from livekit import rtc

                stream = rtc.AudioStream(track, sample_rate=self.sample_rate, num_channels=self.num_channels)
                closing = True
            else:
                raise TypeError(
                    f"expected an async iterator of frames or a track of LiveKit's, got {type(track)}"
                )
        added = self._new_track(track)
        added.task = self._loop.create_task(self._pump(added, stream, closing))
        self._tracks[id(track)] = added
        self._mixed = (self._own, *self._tracks.values())

    async def remove_track(self, track: Any) -> None:
        """Removes a track; one that was not added is ignored. Raises the exception of the track itself."""
        removed = self._tracks.pop(id(track), None)
        if removed is None:
            return
        self._mixed = (self._own, *self._tracks.values())
        self._ended_underruns += removed.underruns
        self._ended_dropped += removed.dropped
        assert removed.task
        removed.task.cancel()
        (outcome,) = await asyncio.gather(removed.task, return_exceptions=True)
        if isinstance(outcome, Exception):
            raise outcome

    async def start(self) -> None:
        """Starts to play. Raises RuntimeError if it plays already, is closed, or if the device has failed."""
        if self.task is not None and not self.task.done():
            raise RuntimeError("Playback already started")
        self._raise_if_ended()
        self._serve(self._speaker)
        self.task = self._loop.create_task(self._speaker.until_end())

    async def play(self, frame: Frame) -> None:
        """Plays a frame after those given before; returns when less than 200 ms are left to play.

        Raises:
            RuntimeError: not started, closed, the device has failed, or the frame has neither one channel nor
                as many as the player, a rate outside of 1 to 384 kHz, or fewer samples than it states.
            TypeError: the frame's samples are neither int16 nor bytes.
        """
        self._raise_if_ended()
        if self.task is None:
            raise RuntimeError("play: the player does not play yet, expected start() before")
        async with self._playing:
            await self._own.put(frame, waits=True)
        self._raise_if_ended()

    async def aclose(self) -> None:
        """Stops, closes the device and every track."""
        for track in [track.origin for track in self._tracks.values()]:
            with contextlib.suppress(Exception):  # logged when it happened
                await self.remove_track(track)
        if self.task is None:
            self._speaker.finish(None)
        else:
            await self._speaker.close(self.task)

    def _new_track(self, origin: Any = None) -> Track:
        return Track(origin, self.sample_rate, self.num_channels, self._loop)

    async def _pump(self, track: Track, stream: AsyncIterator[Any], closing: bool) -> None:
        """Copies a stream into the mixer. LiveKit's AudioStream yields events with a frame in them."""
        try:
            async for item in stream:
                event = not hasattr(item, "samples_per_channel")
                await track.put(item.frame if event else item, waits=not event)
        except Exception as error:
            logger.error("a track has failed and is not played any more: %s", error)
            raise
        finally:
            track.end()
            if closing:
                await stream.aclose()  # type: ignore[attr-defined]

    def _mix(self) -> Samples:
        """Return the sum of all tracks, 10 ms; audio thread."""
        taken = [samples for track in self._mixed if (samples := track.take()) is not None]
        if len(taken) < 2:
            return taken[0] if taken else self._silence
        return np.clip(np.sum(taken, axis=0, dtype=np.int32), -32768, 32767).astype(np.int16)

    def _stopped(self, done: asyncio.Future[None]) -> None:
        """Ends all tracks when the device is closed: no queue will have room again."""
        self._own.end()
        for track in self._tracks.values():
            assert track.task
            track.task.cancel()

    def _raise_if_ended(self) -> None:
        if self._speaker.error:
            raise RuntimeError(str(self._speaker.error)) from self._speaker.error
        if self._speaker.ended:
            raise RuntimeError("the player is closed, expected another one of open_output()")


class SpeakerStream(Stream):
    """The playing direction; its methods belong to the audio thread, follower() to both.

    margin_ns   time for which what is written waits in the card's buffer, so much may the thread be late
    next_ns     time at which the next frame is due by the card's own pace
    """

    def __init__(
        self,
        slot: Slot[Playback],
        loop: asyncio.AbstractEventLoop,
        margin_ns: int,
        mix: Callable[[], Samples],
    ) -> None:
        super().__init__(slot, loop)
        assert slot.card
        self.slot = slot
        self.device = slot.card.device
        self.rate_hz = slot.card.rate_hz
        self.channels = slot.card.channels
        self.player = Player(slot, self.follower(None))
        self.margin_ns = margin_ns
        self.next_ns = 0
        self._mix = mix

    def follower(self, microphone: Slot[Capture] | None) -> Follower:
        """Return what keeps this card synchronous with a microphone's. Raises EndpointError if that takes a
        resampler and there is none."""
        card = microphone.card if microphone else None
        pace = microphone if card and card.device != self.device else None
        return Follower(pace, self.channels, self.rate_hz, self.rate_hz)

    def play(self, due_ns: int) -> tuple[Samples, int]:
        """Play the next frame; return it and the time of its first sample. Raises EndpointError."""
        samples = self._mix()
        played_ns = self.player.play(samples.tobytes(), due_ns)
        if played_ns is None:
            raise EndpointError(self.slot.problem)
        self.next_ns = played_ns + FRAME_NS
        return samples, played_ns
