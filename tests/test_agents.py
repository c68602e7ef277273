"""Streams of any rate, barge-in, and the frameworks for voice agents, with their real packages.

Tests that need Pipecat or LiveKit Agents run in `make test-agents`, in an environment of their own.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import RoomCard, needs_livekit
from reference.signals import Scene, Signal, db, from_int16, lag_samples, power, scene, to_int16, voice

from apmpi.agents.barge_in import BargeIn
from apmpi.agents.stream import Stream


def needs(package: str) -> pytest.MarkDecorator:
    there = list(importlib.metadata.distributions(name=package))
    return pytest.mark.skipif(not there, reason=f"needs {package}: make test-agents")


# Far end alone from 0 to 5 s, both to 8 s, near end alone to 10 s.
FAR_ALONE_S, BOTH_S, END_S = 5.0, 8.0, 10.0
# Of LiveKit's source: the far end is given to the processor so much before the microphone's sound comes back.
QUEUE_MS = 100


def conversation(rng: np.random.Generator, rate_hz: int) -> Scene:
    return scene(rng, rate_hz, END_S, near_from_s=FAR_ALONE_S, far_until_s=BOTH_S)


def part(x: Signal, rate_hz: int, start_s: float, end_s: float) -> Signal:
    return x[round(start_s * rate_hz) : round(end_s * rate_hz)]


def chunks(x: Signal, samples: int) -> list[bytes]:
    return [to_int16(x[at : at + samples]).tobytes() for at in range(0, len(x) - samples + 1, samples)]


def echo_reduction_db(heard: Scene, out: Signal) -> float:
    """Over the last two seconds of the far end alone."""
    settled = (heard.rate_hz, FAR_ALONE_S - 2.0, FAR_ALONE_S)
    return db(power(part(heard.mic, *settled))) - db(power(part(out, *settled)))


def near_end_lag_ms(heard: Scene, out: Signal) -> float:
    alone = (heard.rate_hz, BOTH_S + 0.5, END_S - 0.1)
    lag = lag_samples(part(out, *alone), part(heard.near, *alone), heard.rate_hz // 10)
    return 1000.0 * lag / heard.rate_hz


@pytest.mark.parametrize(
    ("rate_hz", "samples", "delay_ms"),
    [
        (16000, 160, 6),
        (16000, 512, 16),
        (24000, 1200, 18),
        (24000, 240, 18),
        (44100, 882, 17),
        (8000, 37, 16),
    ],
)
def test_a_stream_of_any_rate_in_chunks_of_any_length(
    rng: np.random.Generator, rate_hz: int, samples: int, delay_ms: int
) -> None:
    heard, stream = conversation(rng, rate_hz), Stream(auto_gain_control=False)
    out = []
    for far, mic in zip(chunks(heard.far, samples), chunks(heard.mic, samples), strict=True):
        stream.play(far, rate_hz, 1)
        out.append(stream.process(mic, rate_hz, 1))
        assert len(out[-1]) == len(mic)
    clean = from_int16(np.frombuffer(b"".join(out), np.int16))
    reduction_db, lag_ms = echo_reduction_db(heard, clean), near_end_lag_ms(heard, clean)
    print(f"echo reduced by {reduction_db:.1f} dB, near end {lag_ms:.1f} ms late")
    assert reduction_db > 25
    assert lag_ms < delay_ms + 1


def test_microphone_and_far_end_of_different_rates_and_channels(rng: np.random.Generator) -> None:
    heard, stream = conversation(rng, 48000), Stream()
    far, mic = heard.far[::2], heard.mic[::3]  # 24 and 16 kHz; the voice has little above 8 kHz
    out = []
    for played, recorded in zip(chunks(far, 480), chunks(mic, 320), strict=True):
        stereo = np.repeat(np.frombuffer(played, np.int16), 2).tobytes()
        stream.play(stereo, 24000, 2)
        out.append(stream.process(recorded, 16000, 1))
    clean = from_int16(np.frombuffer(b"".join(out), np.int16))
    settled = (16000, FAR_ALONE_S - 2.0, FAR_ALONE_S)
    reduction_db = db(power(part(mic, *settled))) - db(power(part(clean, *settled)))
    print(f"echo reduced by {reduction_db:.1f} dB")
    assert reduction_db > 20


@pytest.mark.parametrize(
    ("samples", "rate_hz", "channels", "sentence"),
    [
        (b"", 7999, 1, "microphone: 7999 Hz given, expected 8000 to 192000 Hz"),
        (b"", 16000, 9, "microphone: 9 channels given, expected 1 to 8"),
        (b"123456", 16000, 2, "microphone: 6 bytes given, expected whole samples of 4 bytes"),
    ],
)
def test_a_wrong_chunk_is_named(samples: bytes, rate_hz: int, channels: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Stream().process(samples, rate_hz, channels)


def test_barge_in_is_allowed_for_the_near_end_and_not_for_the_echo(rng: np.random.Generator) -> None:
    heard, seen = conversation(rng, 16000), list[tuple[float, BargeIn]]()
    now_s = 0.0

    def remember(state: BargeIn) -> None:
        seen.append((now_s, state))

    stream = Stream(remember)
    for far, mic in zip(chunks(heard.far, 320), chunks(heard.mic, 320), strict=True):
        stream.play(far, 16000, 1)
        stream.process(mic, 16000, 1)
        now_s += 0.02
    print(*((f"{at_s:.2f}", state.near_end_active, state.echo_free) for at_s, state in seen))
    allowed_s = [at_s for at_s, state in seen if state.allowed]
    assert FAR_ALONE_S <= min(allowed_s) < FAR_ALONE_S + 3.0
    # Nothing is known of the echo path when the far end begins.
    assert any(not state.echo_free for at_s, state in seen if at_s < 1.0)
    assert stream.barge_in.echo_free


@needs_livekit
@pytest.mark.real_time
def test_livekit_hands_its_frames_to_the_processor(
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    """A track of LiveKit's own, read by its AudioStream as an agent reads it: 24 kHz, frames of 50 ms."""
    from livekit import rtc

    from apmpi.agents.livekit import MicrophoneProcessor

    heard, processor = conversation(rng, 24000), MicrophoneProcessor(auto_gain_control=False)

    async def listen() -> Signal:
        speaker = rtc.AudioSource(24000, 1, queue_size_ms=QUEUE_MS)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", speaker)
        stream = rtc.AudioStream.from_track(
            track=track, sample_rate=24000, num_channels=1, frame_size_ms=50, noise_cancellation=processor
        )

        async def speak() -> None:
            for far, mic in zip(chunks(heard.far, 240), chunks(heard.mic, 240), strict=True):
                processor.play(rtc.AudioFrame(far, 24000, 1, 240))
                await speaker.capture_frame(rtc.AudioFrame(mic, 24000, 1, 240))

        speaking = asyncio.create_task(speak())
        out: list[bytes] = []
        async for event in stream:
            assert event.frame.samples_per_channel == 1200
            out.append(bytes(event.frame.data))
            if len(out) == 20 * (END_S - 0.5):
                break
        await speaking
        await stream.aclose()
        await speaker.aclose()
        return from_int16(np.frombuffer(b"".join(out), np.int16))

    clean = asyncio.run(listen())
    reduction_db = echo_reduction_db(heard, clean)
    print(f"echo reduced by {reduction_db:.1f} dB")
    assert reduction_db > 20
    assert not caplog.records

    # LiveKit would pass on the microphone's own sound if the processor raised an error.
    with caplog.at_level(logging.ERROR):
        silent = processor._process(rtc.AudioFrame(b"\1" * 80, 4000, 1, 40))
    assert bytes(silent.data) == bytes(80)
    assert "silence in place of the microphone: microphone: 4000 Hz given" in caplog.text


@needs("livekit-agents")
@pytest.mark.real_time
def test_livekit_agents_take_it_for_the_input_of_a_room(rng: np.random.Generator) -> None:
    """The input of an agent's room, with a track in place of that of a remote participant."""
    from livekit import rtc
    from livekit.agents.voice.room_io import AudioInputOptions
    from livekit.agents.voice.room_io._input import _ParticipantAudioInputStream

    from apmpi.agents.livekit import MicrophoneProcessor

    processor = MicrophoneProcessor()
    options = AudioInputOptions(noise_cancellation=processor)
    heard = conversation(rng, options.sample_rate)

    async def listen() -> Signal:
        speaker = rtc.AudioSource(options.sample_rate, 1, queue_size_ms=QUEUE_MS)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", speaker)
        publication = SimpleNamespace(
            sid="TR_1", track=track, source=rtc.TrackSource.SOURCE_MICROPHONE, audio_features=[]
        )
        participant = SimpleNamespace(identity="user", track_publications={"TR_1": publication})
        room: Any = rtc.EventEmitter()
        room.remote_participants = {"user": participant}
        source = _ParticipantAudioInputStream(
            room,
            sample_rate=options.sample_rate,
            num_channels=options.num_channels,
            noise_cancellation=options.noise_cancellation,
            auto_gain_control=False,
            pre_connect_audio_handler=None,
        )
        source.set_participant("user")

        async def speak() -> None:
            for far, mic in zip(chunks(heard.far, 240), chunks(heard.mic, 240), strict=True):
                processor.play(rtc.AudioFrame(far, options.sample_rate, 1, 240))
                await speaker.capture_frame(rtc.AudioFrame(mic, options.sample_rate, 1, 240))

        speaking = asyncio.create_task(speak())
        out = bytearray()
        async for frame in source:
            out += bytes(frame.data)
            if len(out) >= 2 * options.sample_rate * FAR_ALONE_S:
                break
        speaking.cancel()
        await source.aclose()
        await speaker.aclose()
        return from_int16(np.frombuffer(bytes(out), np.int16))

    reduction_db = echo_reduction_db(heard, asyncio.run(listen()))
    print(f"echo reduced by {reduction_db:.1f} dB")
    assert reduction_db > 20


@needs("pipecat-ai")
def test_pipecat_runs_both_filters_in_its_transports(rng: np.random.Generator) -> None:
    """A pipeline whose transport plays at 24 kHz into a simulated room and records at 16 kHz."""
    from pipecat.frames.frames import EndFrame, Frame, InputAudioRawFrame, OutputAudioRawFrame
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.worker import PipelineWorker
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
    from pipecat.transports.base_input import BaseInputTransport
    from pipecat.transports.base_output import BaseOutputTransport
    from pipecat.transports.base_transport import TransportParams
    from pipecat.workers.runner import WorkerRunner

    from apmpi.agents.pipecat import EchoCanceller

    heard = conversation(rng, 48000)
    mic = heard.mic[::3]  # at 16 kHz; the voice has little above 8 kHz
    recorded, out = iter(chunks(mic, 640)), bytearray()
    canceller = EchoCanceller(auto_gain_control=False)
    params = TransportParams(
        audio_in_enabled=True,
        audio_in_sample_rate=16000,
        audio_in_filter=canceller.microphone,
        audio_out_enabled=True,
        audio_out_sample_rate=24000,
        audio_out_end_silence_secs=0,
        audio_out_filter=canceller.speaker,
    )

    class Input(BaseInputTransport):
        async def start(self, frame: Any) -> None:
            await super().start(frame)
            await self.set_transport_ready(frame)

    class Output(BaseOutputTransport):
        async def start(self, frame: Any) -> None:
            await super().start(frame)
            await self.set_transport_ready(frame)

        async def write_audio_frame(self, frame: Any) -> bool:
            """The room: plays 40 ms and records as many, which the pipeline takes before it goes on."""
            assert len(frame.audio) == 2 * 960
            expected = len(out) + 2 * 640
            await source.push_audio_frame(InputAudioRawFrame(next(recorded), 16000, 1))
            while len(out) < expected:
                await asyncio.sleep(0)
            if expected == 2 * len(mic):
                all_recorded.set()
            return True

    class Listener(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, InputAudioRawFrame):
                out.extend(frame.audio)
            else:
                await self.push_frame(frame, direction)

    source, all_recorded = Input(params), asyncio.Event()

    async def talk() -> None:
        worker = PipelineWorker(Pipeline([source, Listener(), Output(params)]), enable_rtvi=False)
        played = [OutputAudioRawFrame(far, 24000, 1) for far in chunks(heard.far[::2], 960)]
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        await worker.queue_frames(played)
        running = asyncio.create_task(runner.run())
        await asyncio.wait_for(all_recorded.wait(), 60)
        await worker.queue_frame(EndFrame())
        await running

    asyncio.run(talk())
    clean = from_int16(np.frombuffer(bytes(out), np.int16))
    settled = (16000, FAR_ALONE_S - 2.0, FAR_ALONE_S)
    reduction_db = db(power(part(mic, *settled))) - db(power(part(clean, *settled)))
    print(f"echo reduced by {reduction_db:.1f} dB; {canceller.stream.barge_in}")
    assert len(clean) == len(mic)
    assert reduction_db > 20
    assert canceller.stream.barge_in.echo_free


@needs("pipecat-ai")
def test_pipecat_controls_the_filter(rng: np.random.Generator) -> None:
    from pipecat.frames.frames import FilterEnableFrame, FilterUpdateSettingsFrame

    from apmpi.agents.pipecat import EchoCanceller

    noise = to_int16(0.01 * rng.standard_normal(16000)).tobytes()
    canceller = EchoCanceller()

    async def talk() -> None:
        with pytest.raises(ValueError, match="microphone: 4000 Hz given"):
            await canceller.microphone.start(4000)
        await canceller.microphone.start(16000)
        assert await canceller.microphone.filter(noise) != noise
        await canceller.microphone.process_frame(FilterEnableFrame(enable=False))
        assert await canceller.microphone.filter(noise) == noise
        await canceller.microphone.process_frame(FilterEnableFrame(enable=True))
        for settings in ({"noise_suppression": "low"}, {"noise_suppression": "loud"}, {"gain": 1}):
            await canceller.microphone.process_frame(FilterUpdateSettingsFrame(settings=settings))
        await canceller.microphone.filter(noise)
        await canceller.microphone.stop()

    asyncio.run(talk())
    assert canceller.stream.module.stats().noise_suppression_db == 6.0


@needs("pipecat-ai")
def test_pipecats_bot_stops_speaking_when_the_user_speaks(
    room_card: RoomCard, tmp_path: Path, rng: np.random.Generator
) -> None:
    """A bot that speaks at 24 kHz for 8 s on a card with a room, and a user who speaks after 4 s."""
    from pipecat.frames.frames import (
        EndFrame,
        Frame,
        InputAudioRawFrame,
        InterruptionFrame,
        OutputAudioRawFrame,
    )
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.worker import PipelineWorker
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
    from pipecat.transports.base_transport import TransportParams
    from pipecat.workers.runner import WorkerRunner

    from apmpi.agents.pipecat_transport import LocalTransport

    user = np.concatenate([np.zeros(4 * 48000), voice(rng, 48000, 3.0, -20.0)])
    soundfile.write(tmp_path / "near.wav", user, 48000)
    played = tmp_path / "played.wav"
    card = f"plug:{room_card(delay_ms=40, near=tmp_path / 'near.wav', noise_dbfs=-70, record=played)}"
    out = bytearray()
    interrupted_s: list[float] = []

    def heard(state: BargeIn) -> None:
        if state.allowed and not interrupted_s:
            interrupted_s.append(len(out) / 2 / 16000)
            asyncio.get_running_loop().create_task(worker.queue_frame(InterruptionFrame()))

    params = TransportParams(
        audio_in_enabled=True,
        audio_in_sample_rate=16000,
        audio_out_enabled=True,
        audio_out_sample_rate=24000,
        audio_out_end_silence_secs=0,
    )
    transport = LocalTransport(params, input_device=card, output_device=card, on_barge_in=heard)
    all_recorded = asyncio.Event()

    class Listener(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, InputAudioRawFrame):
                out.extend(frame.audio)
                if len(out) >= 2 * 16000 * 8:
                    all_recorded.set()
            else:
                await self.push_frame(frame, direction)

    worker = PipelineWorker(Pipeline([transport.input(), Listener(), transport.output()]), enable_rtvi=False)

    async def talk() -> None:
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        speech = chunks(voice(rng, 24000, 8.0, -26.0), 960)
        await worker.queue_frames([OutputAudioRawFrame(each, 24000, 1) for each in speech])
        running = asyncio.create_task(runner.run())
        await asyncio.wait_for(all_recorded.wait(), 30)
        await worker.queue_frame(EndFrame())
        await running

    asyncio.run(talk())
    print(f"interrupted after {interrupted_s} s")
    (after_s,) = interrupted_s
    assert 4.0 <= after_s < 7.0
    loudspeaker, _ = soundfile.read(played)
    assert db(power(part(loudspeaker, 48000, 1.0, 3.0))) > -35
    # At most 200 ms are on their way to the card, and the start of the two directions differs by less.
    assert db(power(part(loudspeaker, 48000, after_s + 0.6, 8.0))) < -80
