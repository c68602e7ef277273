"""MediaDevices: the microphone and the loudspeaker of an asyncio program, with LiveKit's names and meaning.

    tracks and frames ──► OutputPlayer: mixed ──┬───────► speaker )))
                                                │ reference       ))) echo
                                                ▼                 ▼
    capture.source ◄── queue ◄── AudioProcessingModule ◄── microphone

The code here and in capture.py, player.py and track.py belongs to the event loop's thread, except what is
marked for the audio thread; duplex.py is that thread.
"""

from __future__ import annotations

import asyncio
from typing import Any

import alsaaudio

from apmpi.api.apm import AudioProcessingModule
from apmpi.api.capture import DelayEstimator, InputCapture, MicrophoneSource, MicrophoneStream
from apmpi.api.duplex import Duplex
from apmpi.api.player import OutputPlayer
from apmpi.cards import pcm
from apmpi.cards.slot import Slot
from apmpi.errors import EndpointError
from apmpi.settings import SAMPLE_RATES_HZ
from apmpi.units import FRAME_NS, FRAMES_PER_S

# A card's buffer, in frames. One half of it (MARGIN_PART) holds what is played, beyond the 10 ms in which the
# microphone fills a frame: so much may the thread be late. It shares the interpreter with a program that can
# be stopped for longer than the daemon's loop, hence up to 50 ms where the loop has 8.
PERIODS_MIN, PERIODS_MAX = 4, 10
MARGIN_PART = 2
CHANNELS_MAX = 8


class MediaDevices:
    """Sound cards for an asyncio program: processed microphone frames in, tracks and frames out.

    One input and one output can be open at a time. What the output plays is the reference for the input's
    echo canceller, whichever was opened first. Both are opened within a running event loop.

    Unlike LiveKit's: frames have 10 ms at every rate, not 100 ms; a device may be given by its name as well
    as by its index; `input_channel_index` is respected; cards may have different clocks and rates; a failure
    raises, and lost sound is counted (`source.dropped`, `input_stream.xruns`, the player's `xruns`,
    `underruns` and `dropped`).

    Args:
        loop: the event loop; None: the one that runs when a device is opened.
        input_sample_rate, output_sample_rate: of the two cards: 8000, 16000, 32000 or 48000 Hz.
        num_channels: 1 to 8, of the frames of both directions.
        blocksize: samples that a card's buffer holds, 40 to 100 ms of them. The thread may be interrupted
            for half of it, which adds to the delay of what is played. Frames themselves are 10 ms.

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
            if rate not in SAMPLE_RATES_HZ:
                raise ValueError(
                    f"{name} is {rate} Hz, expected one of {', '.join(map(str, SAMPLE_RATES_HZ))}"
                )
        if not 1 <= num_channels <= CHANNELS_MAX:
            raise ValueError(f"num_channels is {num_channels}, expected 1 to {CHANNELS_MAX}")
        if blocksize <= 0:
            raise ValueError(f"blocksize is {blocksize}, expected a number of samples above 0")
        self._loop = loop
        self._input_rate_hz = input_sample_rate
        self._output_rate_hz = output_sample_rate
        self._channels = num_channels
        self._blocksize = blocksize
        self._duplex = Duplex()
        self._capture: InputCapture | None = None
        self._player: OutputPlayer | None = None
        # By index. An index once assigned stays with its device when others are plugged in or out.
        self._names: list[str] = []

    # ---- available devices

    def list_input_devices(self) -> list[dict[str, Any]]:
        """Return the devices that can record, with the keys of `sounddevice` and "index".

        Each has "index", "name" (the ALSA name, also good for open_input), "hostapi" (0: ALSA is the only
        one), "max_input_channels", "max_output_channels" and "default_samplerate" (Hz, the highest of the
        four rates that it does). A device in use cannot be queried and is listed with one channel.
        """
        return [entry for entry in self._devices() if entry["max_input_channels"]]

    def list_output_devices(self) -> list[dict[str, Any]]:
        """Return the devices that can play, as list_input_devices()."""
        return [entry for entry in self._devices() if entry["max_output_channels"]]

    def default_input_device(self) -> int | None:
        """Return the index of ALSA's "default", None if it cannot record."""
        return self._default(self.list_input_devices())

    def default_output_device(self) -> int | None:
        """Return the index of ALSA's "default", None if it cannot play."""
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
            rates = [rate for rate in SAMPLE_RATES_HZ for span in spans if span and rate in span[1]]
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
            enable_aec, noise_suppression, high_pass_filter, auto_gain_control: processing of the frames, as
                AudioProcessingModule's; `capture.apm.configure()` sets the rest.
            input_device: an index of list_input_devices(), an ALSA name, or None for ALSA's "default".
            queue_capacity: frames of 10 ms that wait for a reader before the oldest is dropped.
            input_channel_index: the one channel of the device to record as mono, counted from 0.

        Raises:
            RuntimeError: the input is open already, no event loop runs, or the device cannot be used as
                requested (the message names it and the reason).
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
        stream = MicrophoneStream(slot, slot.card, loop, source, apm, estimator, input_channel_index)
        self._duplex.add(microphone=stream)
        task = loop.create_task(stream.until_end())
        self._capture = InputCapture(source, slot.card, task, apm, estimator, stream)
        return self._capture

    def open_output(self, *, output_device: int | str | None = None) -> OutputPlayer:
        """Opens a loudspeaker; it plays after start().

        Args:
            output_device: an index of list_output_devices(), an ALSA name, or None for ALSA's "default".

        Raises:
            RuntimeError: the output is open already, no event loop runs, or the device cannot be used (the
                message names it and the reason).
            ValueError: no such index.
        """
        loop = self._loop or asyncio.get_running_loop()
        if self._player is not None and not self._player._speaker.ended:
            raise RuntimeError("open_output: the output is open already, expected aclose() before")
        rate_hz = self._output_rate_hz
        periods = self._periods(rate_hz)
        device = self._name(output_device)
        slot = Slot("speaker", lambda: pcm.Playback("speaker", device, rate_hz, self._channels, periods))
        margin_ns = FRAME_NS * periods // MARGIN_PART
        self._player = OutputPlayer(slot, lambda speaker: self._duplex.add(speaker=speaker), loop, margin_ns)
        return self._player

    def _periods(self, rate_hz: int) -> int:
        return min(max(self._blocksize * FRAMES_PER_S // rate_hz, PERIODS_MIN), PERIODS_MAX)


def _channels_with(device: str, index: int) -> int:
    """Return the number of channels to open for the one with this index: as few as the device can do."""
    most = CHANNELS_MAX
    if 0 <= index < most:
        for wanted in (index + 1, CHANNELS_MAX):
            able = pcm.abilities(device, alsaaudio.PCM_CAPTURE, wanted)
            if able is None:
                return wanted  # opening it will give the reason
            if able[0] > index:
                return able[0]
            most = able[0]
    raise RuntimeError(
        f"microphone.device: '{device}' has {most} channel(s), but input_channel_index is {index}, "
        f"expected 0 to {most - 1}"
    )
