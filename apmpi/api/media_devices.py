"""MediaDevices: the microphone and the loudspeaker of an asyncio program, with LiveKit's names and meaning.

    tracks and frames ──► OutputPlayer: mixed ──┬───────► speaker )))
                                                │ reference       ))) echo
                                                ▼                 ▼
    capture.source ◄── queue ◄── AudioProcessingModule ◄── microphone

One thread serves both cards, 10 ms by 10 ms, as the daemon's loop does: the microphone's card sets the pace,
and what is played leaves its card a fixed time after the microphone's frame of the same number came in. So
the delay that the canceller sees is known to the sample, whichever of the two was opened first, and an xrun
does not change it. While there is no microphone the speaker's own card sets the pace.

The thread never waits for the event loop: frames go there through call_soon_threadsafe, tracks come from
there through queues. A device that fails ends its own direction only, with an error in the hands of whoever
reads or plays next. Once it has run, Python switches between the program's threads every 0.5 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import alsaaudio
import numpy as np
import numpy.typing as npt

from apmpi.api.apm import MAX_DELAY_MS, RATES_HZ, AudioProcessingModule, Frame
from apmpi.api.frame import AudioFrame
from apmpi.cards import pcm
from apmpi.cards.clock import Resampler, Timebase
from apmpi.cards.live import Player
from apmpi.cards.slot import Slot
from apmpi.cards.sync import Follower
from apmpi.errors import EndpointError
from apmpi.units import FRAME_NS, FRAMES_PER_S, NS_PER_S

NS_PER_MS = 1e6

# A card's buffer, in blocks. What is played waits in its half that is meant for it, beyond the 10 ms that the
# microphone needs for a block: so late may the thread wake up. It shares the interpreter with a program that
# may be stopped for longer than the daemon's loop ever is, hence up to 50 ms where the loop has 8.
PERIODS_MIN, PERIODS_MAX = 4, 10
MARGIN_PART = 2
CHANNELS_MAX = 8

# A track starts to sound this long after its first samples came: network and event loop are late by turns.
# Each time it runs dry nevertheless, it waits twice as long before it sounds again.
TRACK_DELAY_BLOCKS, TRACK_DELAY_MAX_BLOCKS = 3, 12
# A track that can wait is held back at 200 ms ahead; one that can't (it comes in real time) loses what is
# more.
TRACK_AHEAD_BLOCKS = 20

# libsamplerate's range is wider; what lies beyond is no sound.
FRAME_RATE_MIN_HZ, FRAME_RATE_MAX_HZ = 1000, 384_000

# The canceller follows changes of a few milliseconds by itself; telling it more than is news would disturb
# it.
DELAY_NEWS_MS = 5

# Above the 50 that Linux gives its interrupt threads where it has any, as the daemon's own thread.
REALTIME_PRIORITY = 60
# How long another thread may keep the interpreter when this one wants it; Python's 5 ms are half a block.
SWITCH_INTERVAL_S = 0.0005

Samples = npt.NDArray[np.int16]

logger = logging.getLogger("apmpi")


class MicrophoneSource:
    """Processed 10 ms frames of the microphone, for one reader or several that share them.

        async for frame in capture.source: ...                       # in this program
        LocalAudioTrack.create_audio_track("mic", capture.source)    # published by LiveKit

    Attributes:
        sample_rate: Hz.
        num_channels: of every frame.
        dropped: frames that nobody took in time; the oldest make room for the newest.
    """

    def __init__(
        self, sample_rate: int, num_channels: int, capacity: int, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.sample_rate = sample_rate
        self.num_channels = num_channels
        self.dropped = 0
        self._capacity = capacity
        self._loop = loop
        self._frames: deque[AudioFrame] = deque()
        self._news = asyncio.Event()
        self._ended = False
        self._error: Exception | None = None
        self._rtc_source: Any = None
        self._feeding: asyncio.Task[None] | None = None

    def __aiter__(self) -> MicrophoneSource:
        return self

    async def __anext__(self) -> AudioFrame:
        """The next frame. Ends with the capture; raises RuntimeError if the device failed."""
        while not self._frames:
            if self._error:
                raise RuntimeError(str(self._error)) from self._error
            if self._ended:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._frames.popleft()

    async def feed(self, sink: Any) -> None:
        """Gives every frame to `sink.capture_frame`, until the capture ends: a livekit.rtc.AudioSource's.

        Raises:
            RuntimeError: the device failed.
        """
        async for frame in self:
            await sink.capture_frame(frame)

    async def aclose(self) -> None:
        """Ends the feeding of a published track; the capture goes on."""
        if self._feeding:
            self._feeding.cancel()
            await asyncio.gather(self._feeding, return_exceptions=True)
            await self._rtc_source.aclose()
            self._feeding = self._rtc_source = None

    @property
    def _ffi_handle(self) -> Any:
        """What LiveKit's create_audio_track asks a source for: that of a LiveKit source fed by this one."""
        if self._rtc_source is None:
            from livekit import rtc

            self._rtc_source = rtc.AudioSource(self.sample_rate, self.num_channels, loop=self._loop)
            self._feeding = self._loop.create_task(self.feed(self._rtc_source))
        return self._rtc_source._ffi_handle

    def _arrived(self, frame: AudioFrame) -> None:
        if len(self._frames) >= self._capacity:
            self._frames.popleft()
            self.dropped += 1
        self._frames.append(frame)
        self._news.set()

    def _end(self, error: Exception | None) -> None:
        self._ended, self._error = True, error
        self._news.set()


class DelayEstimator:
    """The delay between far end and echo, measured for every block from the cards' clocks.

    Attributes:
        delay_ms: (t_render - t_analyze) + (t_process - t_capture), the definition of WebRTC's
            set_stream_delay_ms; -1.0 before anything was played.
    """

    def __init__(self) -> None:
        self.delay_ms = -1.0
        self._output_delay_s = 0.0

    def set_output_delay(self, delay_sec: float) -> None:
        self._output_delay_s = delay_sec

    def get_output_delay(self) -> float:
        """Seconds from handing a block to the card to its first sample at the converter; 0.0: none yet."""
        return self._output_delay_s


@dataclass
class InputCapture:
    """A microphone that is open.

    Attributes:
        source: the processed frames.
        input_stream: the ALSA endpoint; its `xruns` counts how often sound was lost before it could be read.
        task: ends with the capture, raises RuntimeError if the device failed; cancelled, it ends the capture.
        apm: for its stats() and configure(); None if no processing was asked for.
        delay_estimator: the measured delay; None without apm.
    """

    source: MicrophoneSource
    input_stream: pcm.Capture
    task: asyncio.Task[None]
    apm: AudioProcessingModule | None
    delay_estimator: DelayEstimator | None
    _stream: _Stream = field(repr=False)

    async def aclose(self) -> None:
        """Closes the device. What is queued can still be read; after it the source ends."""
        await _close(self._stream, self.task)
        await self.source.aclose()


class OutputPlayer:
    """A loudspeaker that is open: it plays the sum of its tracks, and of the frames given to play().

    Attributes:
        sample_rate: Hz.
        num_channels: of what is played.
        task: from start() on; ends with the playing, raises RuntimeError if the device failed; cancelled, it
            ends the playing.
    """

    def __init__(
        self,
        slot: Slot[pcm.Playback],
        duplex: _Duplex,
        loop: asyncio.AbstractEventLoop,
        margin_ns: int,
    ) -> None:
        if slot.card is None:
            raise EndpointError(slot.problem)
        self.sample_rate = slot.card.rate_hz
        self.num_channels = slot.card.channels
        self.task: asyncio.Task[None] | None = None
        self._loop = loop
        self._duplex = duplex
        self._speaker = _Speaker(slot, loop, margin_ns, self._mix)
        self._speaker.done.add_done_callback(self._stopped)
        self._tracks: dict[int, _Track] = {}
        self._own = self._new_track()
        self._playing = asyncio.Lock()  # one frame after the other
        # What the thread mixes: replaced as a whole, never changed.
        self._mixed: tuple[_Track, ...] = (self._own,)
        self._silence = np.zeros((slot.card.frame_samples, slot.card.channels), np.int16)
        self._ended_underruns = self._ended_dropped = 0

    @property
    def underruns(self) -> int:
        """How often a track had nothing to play in its middle."""
        return self._ended_underruns + sum(track.underruns for track in self._tracks.values())

    @property
    def dropped(self) -> int:
        """Blocks of 10 ms left out because a track's real time was faster than the card's."""
        return self._ended_dropped + sum(track.dropped for track in self._tracks.values())

    @property
    def xruns(self) -> int:
        """How often the card ran dry."""
        return self._speaker.slot.xruns

    @property
    def drift_ppm(self) -> float | None:
        """By how much the speaker's clock is faster than the microphone's, and what is played resampled; None
        if both are one card's, or there is no microphone."""
        return self._speaker.player.follower.ppm

    async def add_track(self, track: Any) -> None:
        """Adds to what is played: an async iterator of frames, LiveKit's AudioStream, or a LiveKit track.

        Frames have any rate and length, and the player's channel count or one channel. An iterator is
        asked for more while it is less than 200 ms ahead; LiveKit's streams can't wait, they lose what is
        more.

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
        """Takes a track out; nothing happens if it is not there. Raises what the track itself raised."""
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
        self._duplex.add(speaker=self._speaker)
        self.task = self._loop.create_task(_ending(self._speaker))

    async def play(self, frame: Frame) -> None:
        """Plays a frame after those given before; returns when less than 200 ms are left to play.

        Raises:
            RuntimeError: not started, closed, the device has failed, or the frame has neither one channel nor
                as many as the player, a rate beyond 1 to 384 kHz, or fewer samples than it says.
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
            with contextlib.suppress(Exception):  # said when it happened
                await self.remove_track(track)
        if self.task is None:
            self._speaker.finish(None)
        else:
            await _close(self._speaker, self.task)

    def _new_track(self, origin: Any = None) -> _Track:
        return _Track(origin, self.sample_rate, self.num_channels, self._loop)

    async def _pump(self, track: _Track, stream: AsyncIterator[Any], closing: bool) -> None:
        """From a stream into the mixer; LiveKit's AudioStream gives events with a frame in them."""
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
        """10 ms of all tracks; on the thread."""
        blocks = [block for track in self._mixed if (block := track.take()) is not None]
        if len(blocks) < 2:
            return blocks[0] if blocks else self._silence
        return np.clip(np.sum(blocks, axis=0, dtype=np.int32), -32768, 32767).astype(np.int16)

    def _stopped(self, done: asyncio.Future[None]) -> None:
        """Nobody takes anything any more: whoever waits for room in a queue waits no longer."""
        self._own.end()
        for track in self._tracks.values():
            assert track.task
            track.task.cancel()

    def _raise_if_ended(self) -> None:
        if self._speaker.error:
            raise RuntimeError(str(self._speaker.error)) from self._speaker.error
        if self._speaker.ended:
            raise RuntimeError("the player is closed, expected another one of open_output()")


class MediaDevices:
    """Sound cards for an asyncio program: processed microphone frames in, tracks and frames out.

    One input and one output can be open at a time. What the output plays is the reference for the input's
    echo canceller, whichever was opened first. Both are opened within a running event loop.

    Unlike LiveKit's: blocks are of 10 ms at every rate, not of 100 ms; a device may be named as well as
    counted; `input_channel_index` is heeded; cards may have different clocks and rates; what fails raises,
    and what is lost is counted (`source.dropped`, `input_stream.xruns`, the player's `xruns`, `underruns`
    and `dropped`).

    Args:
        loop: the event loop; None: the one that runs when a device is opened.
        input_sample_rate, output_sample_rate: of the two cards: 8000, 16000, 32000 or 48000 Hz.
        num_channels: 1 to 8, of the frames of both directions.
        blocksize: samples that a card's buffer holds, 40 to 100 ms of them. Half of it may be the length of
            an interruption, and adds to the delay of what is played. Blocks themselves are 10 ms.

    Raises:
        ValueError: a rate, count or size is none of these.
    """

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        input_sample_rate: int = 48000,
        output_sample_rate: int = 48000,
        num_channels: int = 1,
        blocksize: int = 4800,
    ) -> None:
        for name, rate in (
            ("input_sample_rate", input_sample_rate),
            ("output_sample_rate", output_sample_rate),
        ):
            if rate not in RATES_HZ:
                raise ValueError(f"{name} is {rate} Hz, expected one of {', '.join(map(str, RATES_HZ))}")
        if not 1 <= num_channels <= CHANNELS_MAX:
            raise ValueError(f"num_channels is {num_channels}, expected 1 to {CHANNELS_MAX}")
        if blocksize <= 0:
            raise ValueError(f"blocksize is {blocksize}, expected a number of samples above 0")
        self._loop = loop
        self._input_rate_hz = input_sample_rate
        self._output_rate_hz = output_sample_rate
        self._channels = num_channels
        self._blocksize = blocksize
        self._duplex = _Duplex()
        self._capture: InputCapture | None = None
        self._player: OutputPlayer | None = None
        # An index, once given, stays that device's, whatever is plugged in or out meanwhile.
        self._names: list[str] = []

    # ---- which devices there are

    def list_input_devices(self) -> list[dict[str, Any]]:
        """The devices that can record, with the keys of `sounddevice` and "index".

        Each has "index", "name" (the ALSA name, also good for open_input), "hostapi" (0: ALSA is the only
        one), "max_input_channels", "max_output_channels" and "default_samplerate" (Hz, the highest of the
        four rates that it does). A device in use can't be asked, and counts with one channel.
        """
        return [entry for entry in self._devices() if entry["max_input_channels"]]

    def list_output_devices(self) -> list[dict[str, Any]]:
        """The devices that can play, as list_input_devices()."""
        return [entry for entry in self._devices() if entry["max_output_channels"]]

    def default_input_device(self) -> int | None:
        """The index of ALSA's "default", None if it can't record."""
        return self._default(self.list_input_devices())

    def default_output_device(self) -> int | None:
        """The index of ALSA's "default", None if it can't play."""
        return self._default(self.list_output_devices())

    def _devices(self) -> list[dict[str, Any]]:
        there = {
            direction: pcm.names(direction) for direction in (alsaaudio.PCM_CAPTURE, alsaaudio.PCM_PLAYBACK)
        }
        for name in (name for names in there.values() for name in names):
            if name not in self._names:
                self._names.append(name)
        entries = []
        for index, name in enumerate(self._names):
            spans = [
                pcm.abilities(name, direction, CHANNELS_MAX) if name in names else None
                for direction, names in there.items()
            ]
            rates = [rate for rate in RATES_HZ for span in spans if span and rate in span[1]]
            inputs, outputs = (span[0] if span else 0 for span in spans)
            entries.append(
                {
                    "index": index,
                    "name": name,
                    "hostapi": 0,
                    "max_input_channels": inputs,
                    "max_output_channels": outputs,
                    "default_samplerate": float(max(rates, default=self._input_rate_hz)),
                }
            )
        return entries

    @staticmethod
    def _default(entries: list[dict[str, Any]]) -> int | None:
        return next((entry["index"] for entry in entries if entry["name"] == "default"), None)

    def _name(self, device: int | str | None) -> str:
        if device is None:
            return "default"
        if isinstance(device, str):
            return device
        if not self._names:
            self._devices()
        if not 0 <= device < len(self._names):
            raise ValueError(
                f"device index is {device}, expected one that list_input_devices() or "
                f"list_output_devices() gives (0 to {len(self._names) - 1})"
            )
        return self._names[device]

    # ---- opening

    def open_input(
        self,
        *,
        enable_aec: bool = True,
        noise_suppression: bool | str = True,
        high_pass_filter: bool = True,
        auto_gain_control: bool = True,
        input_device: int | str | None = None,
        queue_capacity: int = 50,
        input_channel_index: int | None = None,
    ) -> InputCapture:
        """Opens a microphone and starts to record.

        Args:
            enable_aec, noise_suppression, high_pass_filter, auto_gain_control: what is done to the frames, as
                AudioProcessingModule's; more of it by `capture.apm.configure()`.
            input_device: an index of list_input_devices(), an ALSA name, or None for ALSA's "default".
            queue_capacity: how many frames of 10 ms wait for a reader before the oldest is dropped.
            input_channel_index: take this channel of the device alone, counted from 0, as mono.

        Raises:
            RuntimeError: the input is open already, no event loop runs, or the device can't be used as asked
                (the message says which and why).
            ValueError: no such index, or no room in the queue.
        """
        loop = self._loop or asyncio.get_running_loop()
        if self._capture is not None and not self._capture._stream.ended:
            raise RuntimeError("open_input: the input is open already, expected aclose() before")
        if queue_capacity < 1:
            raise ValueError(f"queue_capacity is {queue_capacity}, expected at least 1")
        device = self._name(input_device)
        card_channels, channels = self._channels, self._channels
        if input_channel_index is not None:
            card_channels, channels = _channels_with(device, input_channel_index), 1
        rate_hz = self._input_rate_hz
        slot = Slot(
            "microphone",
            lambda: pcm.Capture("microphone", device, rate_hz, card_channels, self._periods(rate_hz)),
        )
        if slot.card is None:
            raise EndpointError(slot.problem)
        apm = estimator = None
        if enable_aec or noise_suppression or high_pass_filter or auto_gain_control:
            estimator = DelayEstimator()
            apm = AudioProcessingModule(
                echo_cancellation=enable_aec,
                noise_suppression=noise_suppression,
                high_pass_filter=high_pass_filter,
                auto_gain_control=auto_gain_control,
            )
        source = MicrophoneSource(rate_hz, channels, queue_capacity, loop)
        stream = _Microphone(slot, slot.card, loop, source, apm, estimator, input_channel_index)
        self._duplex.add(microphone=stream)
        task = loop.create_task(_ending(stream))
        self._capture = InputCapture(source, slot.card, task, apm, estimator, stream)
        return self._capture

    def open_output(self, *, output_device: int | str | None = None) -> OutputPlayer:
        """Opens a loudspeaker; it sounds after start().

        Args:
            output_device: an index of list_output_devices(), an ALSA name, or None for ALSA's "default".

        Raises:
            RuntimeError: the output is open already, no event loop runs, or the device can't be used (the
                message says which and why).
            ValueError: no such index.
        """
        loop = self._loop or asyncio.get_running_loop()
        if self._player is not None and not self._player._speaker.ended:
            raise RuntimeError("open_output: the output is open already, expected aclose() before")
        rate_hz = self._output_rate_hz
        periods = self._periods(rate_hz)
        device = self._name(output_device)
        slot = Slot(
            "speaker", lambda: pcm.Playback("speaker", device, rate_hz, self._channels, periods)
        )
        self._player = OutputPlayer(slot, self._duplex, loop, FRAME_NS * periods // MARGIN_PART)
        return self._player

    def _periods(self, rate_hz: int) -> int:
        return min(max(self._blocksize * FRAMES_PER_S // rate_hz, PERIODS_MIN), PERIODS_MAX)


def _channels_with(device: str, index: int) -> int:
    """How many channels to open for the one with this index: as few as the device can."""
    most = CHANNELS_MAX
    if 0 <= index < most:
        for wanted in (index + 1, CHANNELS_MAX):
            able = pcm.abilities(device, alsaaudio.PCM_CAPTURE, wanted)
            if able is None:
                return wanted  # opening it will say why
            if able[0] > index:
                return able[0]
            most = able[0]
    raise RuntimeError(
        f"microphone.device: '{device}' has {most} channel(s), but input_channel_index is {index}, "
        f"expected 0 to {most - 1}"
    )


# ---- what the thread works on


class _Stream:
    """One direction, from add() to its end; the thread alone touches the device in between.

    closing   set by the event loop: the thread lets go before its next block
    ended, error   set by the thread
    done      the same for the event loop
    """

    def __init__(
        self,
        slot: Slot[pcm.Capture] | Slot[pcm.Playback],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.loop = loop
        self.closing = self.ended = False
        self.error: Exception | None = None
        self.done: asyncio.Future[None] = loop.create_future()
        self._slot = slot

    def finish(self, error: Exception | None) -> None:
        if self.ended:
            return
        self.ended, self.error = True, error
        self._slot.close()
        self.tell(self._finished, error)

    def tell(self, callback: Callable[..., None], *arguments: Any) -> None:
        """Calls back on the event loop; one that has been closed meanwhile needs to know nothing."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(callback, *arguments)

    def _finished(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def _ending(stream: _Stream) -> None:
    """What `task` runs: waits for the end, raises the error if there was one. Cancelled, it is the end."""
    try:
        await asyncio.shield(stream.done)
    finally:
        stream.closing = True
    if stream.error:
        raise RuntimeError(str(stream.error)) from stream.error


async def _close(stream: _Stream, task: asyncio.Task[None]) -> None:
    stream.closing = True
    # The error, if any, was raised where it mattered.
    await asyncio.gather(asyncio.shield(stream.done), task, return_exceptions=True)


class _Microphone(_Stream):
    def __init__(
        self,
        slot: Slot[pcm.Capture],
        card: pcm.Capture,
        loop: asyncio.AbstractEventLoop,
        source: MicrophoneSource,
        apm: AudioProcessingModule | None,
        estimator: DelayEstimator | None,
        channel_index: int | None,
    ) -> None:
        super().__init__(slot, loop)
        self.slot = slot
        self.card = card
        self.apm = apm
        self.reference: _Reference | None = None  # to what is played, if that has another rate
        self._source = source
        self._estimator = estimator
        self._channel_index = channel_index
        self._told_delay_ms = -DELAY_NEWS_MS

    def deliver(self, block: bytes, far: Samples | None, out_ns: int) -> None:
        """Processes one block, and what was played meanwhile, and sends it to the source.

        out_ns: from recording this block's first sample to playing the far end's, by the cards' clocks
        """
        samples: Samples = np.frombuffer(block, "<i2").reshape(-1, self.card.channels)
        if self._channel_index is not None:
            samples = samples[:, self._channel_index : self._channel_index + 1]
        frame = AudioFrame(samples.tobytes(), self.card.rate_hz, samples.shape[1], len(samples))
        if self.apm:
            if far is not None:
                self._tell_delay(out_ns)
                if self.reference:
                    far = self.reference.block(far)
                self.apm.process_reverse_stream(AudioFrame.from_ndarray(far, self.card.rate_hz))
            self.apm.process_stream(frame)
        self.tell(self._source._arrived, frame)

    def _tell_delay(self, out_ns: int) -> None:
        assert self.apm and self._estimator
        # Both ends of the chain are called at one moment here, so t_process - t_analyze is nothing, and what
        # is left of (t_render - t_analyze) + (t_process - t_capture) is t_render - t_capture.
        self._estimator.delay_ms = out_ns / NS_PER_MS
        delay_ms = min(max(round(self._estimator.delay_ms), 0), MAX_DELAY_MS)
        if abs(delay_ms - self._told_delay_ms) >= DELAY_NEWS_MS:
            self.apm.set_stream_delay_ms(delay_ms)
            self._told_delay_ms = delay_ms

    def set_output_delay(self, delay_ns: int) -> None:
        if self._estimator:
            self._estimator.set_output_delay(delay_ns / NS_PER_S)

    def _finished(self, error: Exception | None) -> None:
        super()._finished(error)
        self._source._end(error)


class _Speaker(_Stream):
    def __init__(
        self,
        slot: Slot[pcm.Playback],
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
        self.player = Player(slot, self.follower(None), Timebase())
        self.margin_ns = margin_ns
        self.next_ns = 0  # when the block after the last one is due by the card's own pace
        self._mix = mix

    def follower(self, microphone: _Microphone | None) -> Follower:
        """What keeps in step with a microphone. Raises EndpointError if that takes a resampler that is not
        there."""
        other = microphone is not None and microphone.card.device != self.device
        pace = microphone.slot if microphone and other else None
        return Follower(pace, self.channels, self.rate_hz, self.rate_hz)

    def play(self, due_ns: int) -> tuple[Samples, int]:
        """Plays the next block; returns it and when it will be heard. Raises EndpointError."""
        block = self._mix()
        played_ns = self.player.play(block.tobytes(), due_ns)
        if played_ns is None:
            raise EndpointError(self.slot.problem)
        self.next_ns = played_ns + FRAME_NS
        return block, played_ns


class _Reference:
    """What is played, 10 ms by 10 ms, at the microphone's rate."""

    def __init__(self, channels: int, played_rate_hz: int, rate_hz: int) -> None:
        """Raises EndpointError if there is no resampler."""
        self._ratio = rate_hz / played_rate_hz
        self._resampler = Resampler(channels, played_rate_hz // FRAMES_PER_S, self._ratio)
        self._block_samples = rate_hz // FRAMES_PER_S
        # The filter keeps 20 samples (of the lower rate) back; 5 ms are never less.
        self._pending: Samples = np.zeros((rate_hz // 200, channels), np.int16)

    def block(self, far: Samples) -> Samples:
        resampled = np.frombuffer(self._resampler.process(far.tobytes(), self._ratio), np.int16)
        samples = np.concatenate([self._pending, resampled.reshape(-1, far.shape[1])])
        self._pending = samples[self._block_samples :]
        return samples[: self._block_samples]


class _Track:
    """Samples on their way from the event loop to the thread, cut into blocks of 10 ms.

    origin   what add_track() was given; kept, so that its id stays its own
    """

    def __init__(self, origin: Any, rate_hz: int, channels: int, loop: asyncio.AbstractEventLoop) -> None:
        self.origin = origin
        self.underruns = self.dropped = 0
        self.task: asyncio.Task[None] | None = None
        self._rate_hz = rate_hz
        self._channels = channels
        self._channel_counts = "1" if channels == 1 else f"1 or {channels}"
        self._loop = loop
        self._block_samples = rate_hz // FRAMES_PER_S
        self._rest: Samples = np.zeros((0, channels), np.int16)
        self._resampler: Resampler | None = None
        self._resampled_from_hz = rate_hz
        self._blocks: deque[Samples] = deque()
        self._room = asyncio.Event()
        self._waiting = False
        self._ended = False
        self._delay_blocks = TRACK_DELAY_BLOCKS
        self._held_blocks = 0  # how long the track has waited with something to play

    async def put(self, frame: Frame, *, waits: bool) -> None:
        """Takes a frame of any length.

        Raises:
            RuntimeError: it does not fit the player, or holds fewer samples than it says.
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
        whole = len(samples) // self._block_samples * self._block_samples
        for at in range(0, whole, self._block_samples):
            await self._put_block(samples[at : at + self._block_samples], waits)
        self._rest = samples[whole:]

    def _resampled(self, samples: Samples, rate_hz: int) -> Samples:
        step, ratio = rate_hz // FRAMES_PER_S, self._rate_hz / rate_hz
        if self._resampler is None or rate_hz != self._resampled_from_hz:
            self._resampler, self._resampled_from_hz = Resampler(self._channels, step, ratio), rate_hz
        pieces = [samples[at : at + step].tobytes() for at in range(0, len(samples), step)]
        done = b"".join(self._resampler.process(piece, ratio) for piece in pieces)
        return np.frombuffer(done, np.int16).reshape(-1, self._channels)

    async def _put_block(self, block: Samples, waits: bool) -> None:
        while waits and len(self._blocks) >= TRACK_AHEAD_BLOCKS and not self._ended:
            self._room.clear()
            self._waiting = True
            await self._room.wait()
        self._blocks.append(block)
        if len(self._blocks) > TRACK_AHEAD_BLOCKS:
            self._blocks.popleft()
            self.dropped += 1

    def end(self) -> None:
        """Nothing more will come, or be taken: what is left is filled up with silence."""
        if self._resampler:  # its filter holds the last samples
            silence = np.zeros((self._resampled_from_hz // FRAMES_PER_S, self._channels), np.int16)
            tail = self._resampled(silence, self._resampled_from_hz)
            self._rest = np.concatenate([self._rest, tail])[: self._block_samples]
        if len(self._rest):
            last = np.zeros((self._block_samples, self._channels), np.int16)
            last[: len(self._rest)] = self._rest
            self._blocks.append(last)
        self._ended = True
        self._room.set()

    def take(self) -> Samples | None:
        """10 ms to play, None for silence; on the thread."""
        if not self._blocks:
            if self._held_blocks and not self._ended:
                self.underruns += 1
                self._delay_blocks = min(2 * self._delay_blocks, TRACK_DELAY_MAX_BLOCKS)
            self._held_blocks = 0
            return None
        if self._held_blocks < self._delay_blocks:
            self._held_blocks += 1
            return None
        block = self._blocks.popleft()
        if self._waiting:
            self._waiting = False
            with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._room.set)
        return block


class _Duplex:
    """The thread that serves whatever is open: microphone, speaker, or both in step."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._microphone: _Microphone | None = None
        self._speaker: _Speaker | None = None
        self._follower: Follower | None = None  # of the speaker, while both are open
        self._thread: threading.Thread | None = None

    def add(self, *, microphone: _Microphone | None = None, speaker: _Speaker | None = None) -> None:
        """Raises EndpointError, and closes what was added, if both need a resampler that is not there."""
        with self._lock:
            both = microphone or self._microphone, speaker or self._speaker
            if both[0] and both[1]:
                try:
                    self._follower = both[1].follower(both[0])
                    if both[0].card.rate_hz != both[1].rate_hz:
                        both[0].reference = _Reference(
                            both[1].channels, both[1].rate_hz, both[0].card.rate_hz
                        )
                except EndpointError as error:
                    for added in filter(None, (microphone, speaker)):
                        added.finish(error)
                    raise
            self._microphone, self._speaker = both
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="apmpi media devices", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # not permitted: then xruns are more likely, and counted
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REALTIME_PRIORITY))
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_S))
        before: tuple[_Microphone | None, _Speaker | None] = None, None
        while (streams := self._open_streams()) is not None:
            microphone, speaker = streams
            if speaker and streams != before:  # another pace
                speaker.player.follower = (microphone and self._follower) or speaker.follower(None)
                speaker.player.realign()
            before = streams
            try:
                self._block(microphone, speaker)
            except Exception as error:  # a mistake in this program must not end in silence
                logger.exception("sound has stopped")
                for stream in filter(None, streams):
                    stream.finish(error)

    def _open_streams(self) -> tuple[_Microphone | None, _Speaker | None] | None:
        """Whatever is open; None, and the thread ends, if nothing is."""
        with self._lock:
            for stream in filter(None, (self._microphone, self._speaker)):
                if stream.closing or stream.loop.is_closed():
                    stream.finish(None)
            if self._microphone and self._microphone.ended:
                self._microphone = None
            if self._speaker and self._speaker.ended:
                self._speaker = None
            if self._microphone is None and self._speaker is None:
                self._thread = None
                return None
            return self._microphone, self._speaker

    def _block(self, microphone: _Microphone | None, speaker: _Speaker | None) -> None:
        """10 ms in and 10 ms out."""
        if microphone is None:
            assert speaker
            now_ns = time.monotonic_ns()
            due_ns = max(speaker.next_ns, now_ns + speaker.margin_ns)
            time.sleep((due_ns - speaker.margin_ns - now_ns) / NS_PER_S)
            self._play(speaker, due_ns)
            return
        try:
            near = microphone.card.read()
        except EndpointError as error:
            microphone.finish(error)
            return
        captured_ns = microphone.card.captured_ns
        far, played_ns = None, captured_ns
        if speaker:
            if microphone.card.restarted:
                speaker.player.realign()
            now_ns = time.monotonic_ns()
            played = self._play(speaker, captured_ns + FRAME_NS + speaker.margin_ns)
            if played:
                far, played_ns = played
                microphone.set_output_delay(played_ns - now_ns)
        microphone.deliver(near, far, played_ns - captured_ns)

    def _play(self, speaker: _Speaker, due_ns: int) -> tuple[Samples, int] | None:
        try:
            return speaker.play(due_ns)
        except EndpointError as error:
            speaker.finish(error)
            return None
