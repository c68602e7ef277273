"""MediaDevices on the room card: sound in both directions, errors in the program's calls, and no loss without
a report.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import RoomCard
from reference.signals import RATES_HZ, at_level, db, from_int16, power, to_int16, voice

from apmpi import AudioFrame, MediaDevices, OutputPlayer
from apmpi.api.track import TRACK_AHEAD_FRAMES

PLAIN = {
    "enable_aec": False,
    "noise_suppression": False,
    "high_pass_filter": False,
    "auto_gain_control": False,
}
TIMEOUT_S = 30.0

Test = Callable[..., Coroutine[Any, Any, None]]


@dataclass
class ForeignFrame:
    """A frame of 10 ms at 16 kHz of another library's type."""

    data: Any
    sample_rate: int = 16000
    num_channels: int = 1
    samples_per_channel: int = 160


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, TIMEOUT_S))


def frames_of(samples: np.ndarray, rate_hz: int, length: int = 0) -> list[AudioFrame]:
    length = length or rate_hz // 100
    return [
        AudioFrame.from_ndarray(np.array(samples[at : at + length]), rate_hz)
        for at in range(0, len(samples), length)
    ]


async def track_of(frames: list[AudioFrame]) -> AsyncIterator[AudioFrame]:
    for frame in frames:
        yield frame


async def heard(source: AsyncIterator[AudioFrame], seconds: float) -> np.ndarray:
    """Samples of channel 0 over so many seconds."""
    blocks = []
    for _ in range(round(seconds * 100)):
        blocks.append((await anext(source)).to_ndarray()[:, 0])
    return np.concatenate(blocks)


def played_from(path: Path) -> np.ndarray:
    samples: np.ndarray = soundfile.read(path, dtype="int16")[0]
    return samples


def write_wav(path: Path, samples: np.ndarray, rate_hz: int) -> Path:
    soundfile.write(path, samples, rate_hz)
    return path


def noise(rng: np.random.Generator, seconds: float, rate_hz: int, level_dbfs: float = -20.0) -> np.ndarray:
    return to_int16(at_level(rng.standard_normal(round(seconds * rate_hz)), level_dbfs))


# ---------- listing the devices


@pytest.fixture
def listed_card(room_card: RoomCard, tmp_path: Path) -> str:
    """A card that ALSA lists, and that is its default too."""
    name = room_card()
    hint = 'hint {{ show on\n description "{}" }}\n'
    with (tmp_path / "room.conf").open("a") as conf:
        conf.write(f"pcm.{name} {{ {hint.format('A simulated room')} }}\n")
        conf.write(f"pcm.!default {{ type plug\n slave.pcm {name}\n {hint.format('Default')} }}\n")
    return name


def test_devices_are_listed_with_their_abilities(listed_card: str) -> None:
    devices = MediaDevices()
    for entries in (devices.list_input_devices(), devices.list_output_devices()):
        by_name = {entry["name"]: entry for entry in entries}
        assert "null" not in by_name
        card = by_name[listed_card]
        assert card["max_input_channels"] == card["max_output_channels"] == 8
        assert card["default_samplerate"] == 48000.0
        assert len({entry["index"] for entry in entries}) == len(entries)
    assert by_name["default"]["index"] == devices.default_input_device() == devices.default_output_device()


def test_without_a_default_there_is_none(room_card: RoomCard) -> None:
    room_card()
    assert MediaDevices().default_input_device() is None
    assert MediaDevices().default_output_device() is None


def test_a_device_is_opened_by_index_name_or_default(listed_card: str) -> None:
    async def test() -> None:
        devices = MediaDevices()
        index = next(e["index"] for e in devices.list_input_devices() if e["name"] == listed_card)
        for device in (index, listed_card, None):
            capture = devices.open_input(input_device=device)
            assert (await anext(capture.source)).duration == 0.01
            in_use = {e["name"]: e for e in devices.list_input_devices()}
            assert in_use[listed_card]["index"] == index, "a device in use is still there"
            await capture.aclose()
            player = devices.open_output(output_device=device)
            await player.start()
            await player.aclose()

    run(test())


# ---------- the microphone


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_ten_milliseconds_at_every_rate(
    room_card: RoomCard, tmp_path: Path, rng: np.random.Generator, rate_hz: int
) -> None:
    """Unprocessed, the frames are the microphone's signal, sample by sample, without a gap."""
    near = noise(rng, 1.0, rate_hz)
    card = room_card(near=write_wav(tmp_path / "near.wav", near, rate_hz))

    async def test() -> None:
        capture = MediaDevices(input_sample_rate=rate_hz).open_input(input_device=card, **PLAIN)
        frame = await anext(capture.source)
        shape = (frame.sample_rate, frame.num_channels, frame.samples_per_channel)
        assert shape == (rate_hz, 1, rate_hz // 100) and capture.apm is None
        out = np.concatenate([frame.to_ndarray()[:, 0], await heard(capture.source, 0.5)])
        assert np.array_equal(out, near[: len(out)])
        assert capture.source.dropped == capture.input_stream.xruns == 0
        await capture.aclose()
        with pytest.raises(StopAsyncIteration):
            while True:
                await anext(capture.source)

    run(test())


def test_several_channels_and_one_of_them(
    room_card: RoomCard, tmp_path: Path, rng: np.random.Generator
) -> None:
    """A device with the near end on channel 1 and silence on channels 0 and 2."""
    near = noise(rng, 1.0, 16000)
    room_card("deaf", near=write_wav(tmp_path / "near.wav", near, 16000))
    with (tmp_path / "room.conf").open("a") as conf:
        conf.write("pcm.three { type route\n slave.pcm deaf\n slave.channels 1\n ttable.1.0 1 }\n")

    async def test() -> None:
        devices = MediaDevices(input_sample_rate=16000, num_channels=2)
        capture = devices.open_input(input_device="three", **PLAIN)
        frame = await anext(capture.source)
        assert frame.num_channels == 2 and not np.any(frame.to_ndarray()[:, 0])
        assert np.any(frame.to_ndarray()[:, 1])
        await capture.aclose()
        for index, sounds in ((0, False), (1, True)):
            capture = devices.open_input(input_device="three", input_channel_index=index, **PLAIN)
            frame = await anext(capture.source)
            assert (frame.num_channels, frame.samples_per_channel) == (1, 160)
            assert np.any(frame.to_ndarray()) == sounds
            await capture.aclose()
        with pytest.raises(RuntimeError, match=r"'deaf' has 8 channel.*input_channel_index is 8.*0 to 7"):
            devices.open_input(input_device="deaf", input_channel_index=8)

    run(test())


def test_frames_that_nobody_takes_are_counted_and_the_newest_kept(
    room_card: RoomCard, tmp_path: Path, rng: np.random.Generator
) -> None:
    near = noise(rng, 2.0, 16000)
    card = room_card(near=write_wav(tmp_path / "near.wav", near, 16000))

    async def test() -> None:
        devices = MediaDevices(input_sample_rate=16000)
        capture = devices.open_input(input_device=card, queue_capacity=5, **PLAIN)
        await asyncio.sleep(0.5)
        dropped = capture.source.dropped
        assert dropped > 20
        out = await heard(capture.source, 0.2)
        assert np.array_equal(out, near[dropped * 160 :][: len(out)])
        await capture.aclose()

    run(test())


# ---------- the loudspeaker


def test_what_is_played_is_the_sum_of_tracks_and_frames(
    room_card: RoomCard, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Tracks of any frame length sound without gap, each sample once; two at a time are added."""
    record = tmp_path / "played.wav"
    card = room_card(record=record)
    sounds = [noise(rng, 0.5, 16000) for _ in range(3)]
    # In its first third of a second a card is aligned, by some samples.
    silence = np.zeros(8000, np.int16)
    first, second = (np.concatenate([silence, sound]) for sound in sounds[:2])

    async def test() -> None:
        player = MediaDevices(output_sample_rate=16000).open_output(output_device=card)
        tracks = [track_of(frames_of(first, 16000, 37)), track_of(frames_of(second, 16000, 800))]
        for track in tracks:
            await player.add_track(track)
        with pytest.raises(ValueError, match="already added"):
            await player.add_track(tracks[0])
        await player.start()
        with pytest.raises(RuntimeError, match="already started"):
            await player.start()
        await asyncio.sleep(1.3)
        for frame in frames_of(sounds[2], 16000, 333):
            await player.play(frame)
        await asyncio.sleep(0.5)
        assert player.xruns == player.underruns == player.dropped == 0
        await player.remove_track(tracks[0])
        await player.remove_track(tracks[0])
        await player.aclose()

    run(test())
    played = played_from(record)
    # Each track begins when its first samples are there, so the two may be some blocks apart.
    wanted = np.zeros(len(played), np.int32)
    for sound in sounds:
        start = int(np.argmax(np.correlate(played.astype(float), sound.astype(float), "valid")))
        wanted[start : start + len(sound)] += sound
    assert np.array_equal(played, np.clip(wanted, -32768, 32767))


def test_loud_tracks_saturate_and_mono_is_heard_on_all_channels(room_card: RoomCard, tmp_path: Path) -> None:
    record = tmp_path / "played.wav"
    card = room_card(record=record)
    loud = np.full(1600, 30000, np.int16)

    async def test() -> None:
        player = MediaDevices(output_sample_rate=16000, num_channels=2).open_output(output_device=card)
        for _ in range(2):
            await player.add_track(track_of(frames_of(loud, 16000)))
        await player.start()
        await asyncio.sleep(0.4)
        await player.aclose()

    run(test())
    played = played_from(record)
    assert played.min() == 0 and np.sum(played == 32767) > 800


def test_frames_that_do_not_fit_are_refused(room_card: RoomCard) -> None:
    card = room_card()

    async def test() -> None:
        player = MediaDevices(output_sample_rate=16000, num_channels=2).open_output(output_device=card)
        with pytest.raises(RuntimeError, match="start"):
            await player.play(AudioFrame.create(16000, 1, 160))
        await player.start()
        for rate_hz in (1, 999, 10**9):
            with pytest.raises(RuntimeError, match=f"frame at {rate_hz} Hz, expected 1000 to 384000 Hz"):
                await player.play(AudioFrame.create(rate_hz, 1, 160))
        with pytest.raises(RuntimeError, match="3 channels, expected 1 or 2"):
            await player.play(AudioFrame.create(16000, 3, 160))
        for data, kind, words in (
            (np.zeros(160, np.float32), TypeError, "play: data has elements of format 'f', expected int16"),
            (np.zeros(320, np.int16)[::2], TypeError, "C-contiguous"),
            (bytes(318), RuntimeError, "play: data length must be"),
        ):
            with pytest.raises(kind, match=words):
                await player.play(ForeignFrame(data))
        for wrong in (3, "track", AudioFrame.create(16000, 1, 160)):
            with pytest.raises(TypeError, match="async iterator of frames"):
                await player.add_track(wrong)
        await player.aclose()

    run(test())


def test_a_frame_of_too_many_channels_for_a_mono_player(room_card: RoomCard) -> None:
    card = room_card()

    async def test() -> None:
        player = MediaDevices(output_sample_rate=16000).open_output(output_device=card)
        await player.start()
        with pytest.raises(RuntimeError, match=r"3 channels, expected 1$"):
            await player.play(AudioFrame.create(16000, 3, 160))
        await player.aclose()

    run(test())


@pytest.mark.parametrize("rate_hz", [8000, 22050, 24000, 96000])
def test_frames_of_any_rate_are_played(room_card: RoomCard, tmp_path: Path, rate_hz: int) -> None:
    """A tone of another rate is played as the same tone, 40 dB above all else, with its length."""
    record = tmp_path / "played.wav"
    card = room_card(record=record)
    tone = to_int16(0.3 * np.sin(2 * np.pi * 1000.0 * np.arange(rate_hz) / rate_hz))

    async def test() -> None:
        player = MediaDevices().open_output(output_device=card)
        await player.add_track(track_of(frames_of(tone, rate_hz, 777)))
        await player.start()
        await asyncio.sleep(1.4)
        assert player.xruns == player.underruns == 0
        await player.aclose()

    run(test())
    played = from_int16(played_from(record))
    sounding = np.flatnonzero(np.abs(played) > 0.1)
    length_ms = (sounding[-1] - sounding[0]) / 48.0
    steady = played[sounding[0] + 4800 : sounding[-1] - 4800]
    at = np.arange(len(steady)) / 48000
    basis = np.stack([np.sin(2 * np.pi * 1000.0 * at), np.cos(2 * np.pi * 1000.0 * at)], axis=1)
    fit = basis @ np.linalg.lstsq(basis, steady, rcond=None)[0]
    print(f"{length_ms:.1f} ms, tone {db(power(fit) / power(steady - fit)):.1f} dB above the rest")
    assert length_ms == pytest.approx(1000.0, abs=2.0)
    assert db(power(fit)) - db(power(steady - fit)) > 40.0


def test_a_track_that_fails_says_so_and_the_others_go_on(
    room_card: RoomCard, tmp_path: Path, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    record = tmp_path / "played.wav"
    card = room_card(record=record)
    sound = noise(rng, 0.5, 16000)

    async def failing() -> AsyncIterator[AudioFrame]:
        yield AudioFrame.create(16000, 1, 160)
        raise OSError("the network is down")

    async def test() -> None:
        player = MediaDevices(output_sample_rate=16000).open_output(output_device=card)
        bad = failing()
        await player.add_track(bad)
        await player.add_track(track_of(frames_of(sound, 16000)))
        await player.start()
        await asyncio.sleep(0.8)
        with pytest.raises(OSError, match="network"):
            await player.remove_track(bad)
        await player.aclose()

    run(test())
    assert "the network is down" in caplog.text
    assert np.sum(played_from(record) != 0) == np.sum(sound != 0)


class Live:
    """A stream of events like LiveKit's AudioStream, without pacing."""

    def __init__(self, frames: list[AudioFrame]) -> None:
        self._frames = iter(frames)

    def __aiter__(self) -> Live:
        return self

    async def __anext__(self) -> Any:
        frame = next(self._frames, None)
        if frame is None:
            await asyncio.Event().wait()
        return type("Event", (), {"frame": frame})()


def test_a_live_track_that_is_too_fast_loses_its_oldest_and_says_how_much(
    room_card: RoomCard, tmp_path: Path, rng: np.random.Generator
) -> None:
    record = tmp_path / "played.wav"
    card = room_card(record=record)
    sound = noise(rng, 1.0, 16000)

    async def test() -> None:
        player = MediaDevices(output_sample_rate=16000).open_output(output_device=card)
        track = Live(frames_of(sound, 16000))
        await player.add_track(track)
        await player.start()
        await asyncio.sleep(0.6)
        assert player.dropped == 100 - TRACK_AHEAD_FRAMES and player.underruns == 1
        await player.remove_track(track)
        assert player.dropped == 100 - TRACK_AHEAD_FRAMES
        await player.aclose()

    run(test())
    played = played_from(record)
    kept = sound[-TRACK_AHEAD_FRAMES * 160 :]
    start = int(np.argmax(np.correlate(played.astype(float), kept.astype(float), "valid")))
    assert np.array_equal(played[start : start + len(kept)], kept)


# ---------- both


@pytest.mark.parametrize("first", ["input", "output"])
def test_the_echo_goes_whichever_was_opened_first(
    room_card: RoomCard, tmp_path: Path, rng: np.random.Generator, first: str
) -> None:
    """The far end alone: after four seconds its echo is 20 dB below that at the microphone."""
    rate_hz, seconds = 16000, 5.0
    far = voice(rng, rate_hz, seconds + 1.0, -20.0)
    card = room_card(delay_ms=35)

    async def test() -> None:
        devices = MediaDevices(input_sample_rate=rate_hz, output_sample_rate=rate_hz)

        async def open_player() -> OutputPlayer:
            player = devices.open_output(output_device=card)
            await player.add_track(track_of(frames_of(to_int16(far), rate_hz)))
            await player.start()
            return player

        if first == "output":
            player = await open_player()
            await asyncio.sleep(0.3)
        capture = devices.open_input(input_device=card, auto_gain_control=False, noise_suppression=False)
        if first == "input":
            await heard(capture.source, 0.3)
            player = await open_player()
        out = from_int16(await heard(capture.source, seconds))
        assert capture.apm and capture.delay_estimator
        stats, delay_ms = capture.apm.stats(), capture.delay_estimator.delay_ms
        await capture.aclose()
        await player.aclose()

        echo_db = db(power(far[2 * rate_hz :]))
        left_db = db(power(out[4 * rate_hz :]))
        print(f"{echo_db - left_db:.1f} dB, {stats}, measured way {delay_ms:.2f} ms, xruns {player.xruns}")
        assert echo_db - left_db > 20.0 and stats.converged and stats.reference_present
        # 10 ms for the block and half of the buffer's ten; the room's 35 ms come on top of it
        assert delay_ms == pytest.approx(10.0 + 50.0, abs=1.0)
        assert stats.delay_ms == pytest.approx(delay_ms + 35.0, abs=10.0)

    run(test())


@pytest.mark.parametrize("difference", ["clock", "rate"])
def test_microphone_and_speaker_of_different_clocks_or_rates(
    room_card: RoomCard, tmp_path: Path, rng: np.random.Generator, difference: str
) -> None:
    """A speaker that is 400 ppm fast, or a microphone at 16 kHz: the echo is cancelled as usual."""
    shared = {"card": f"shared-{os.getpid()}-{tmp_path.name}", "delay_ms": 35}
    if difference == "clock":
        microphone, rate_hz = room_card("microphone", **shared, playback_ppm=400), 48000
        speaker = room_card("speaker", **shared, playback_ppm=400)
    else:
        room_card("card", **shared)
        with (tmp_path / "room.conf").open("a") as conf:
            conf.write("pcm.converts { type plug\n slave { pcm card\n rate 48000 } }\n")
        microphone, speaker, rate_hz = "converts", "converts", 16000
    far = voice(rng, 48000, 8.0, -20.0)

    async def test() -> None:
        devices = MediaDevices(input_sample_rate=rate_hz, output_sample_rate=48000)
        player = devices.open_output(output_device=speaker)
        await player.add_track(track_of(frames_of(to_int16(far), 48000)))
        await player.start()
        assert player.drift_ppm is None
        capture = devices.open_input(input_device=microphone, auto_gain_control=False)
        out = from_int16(await heard(capture.source, 7.0))
        assert capture.apm
        print(f"{player.drift_ppm} ppm, {capture.apm.stats()}")
        if difference == "clock":
            assert player.drift_ppm == pytest.approx(400.0, abs=50.0)
        await capture.aclose()
        await player.aclose()
        late_db = db(power(out[6 * rate_hz :]))
        print(f"echo at {late_db:.1f} dBFS, played at {db(power(far)):.1f} dBFS")
        assert late_db < db(power(far)) - 15.0

    run(test())


def test_the_measured_way_is_that_of_the_buffers(room_card: RoomCard, rng: np.random.Generator) -> None:
    """10 ms for the block itself and the half of the speaker's buffer that is kept filled."""
    rate_hz = 48000
    click = noise(rng, 0.2, rate_hz)
    card = room_card(delay_ms=20)

    async def test() -> None:
        devices = MediaDevices()
        capture = devices.open_input(
            input_device=card,
            enable_aec=True,
            noise_suppression=False,
            high_pass_filter=False,
            auto_gain_control=False,
        )
        assert capture.apm and capture.delay_estimator
        # Without cancelling: the time at which the sound returns is measured here.
        capture.apm.configure(echo_cancellation=False)
        player = devices.open_output(output_device=card)
        await player.start()
        await heard(capture.source, 0.3)
        for frame in frames_of(click, rate_hz):
            await player.play(frame)
        await heard(capture.source, 0.8)
        delay_ms = capture.delay_estimator.delay_ms
        latency_s = capture.delay_estimator.get_output_delay()
        await player.aclose()
        await capture.aclose()
        print(f"measured {delay_ms:.3f} ms, of which {1000 * latency_s:.1f} ms in the speaker's buffer")
        assert delay_ms == pytest.approx(10.0 + 50.0, abs=1.0)
        assert 0.03 < latency_s < 0.051

    run(test())


def test_a_program_that_is_busy_loses_nothing(room_card: RoomCard, tmp_path: Path) -> None:
    """A third of a second of Python code alone: the frames wait in the queue, the speaker plays on."""
    near = np.arange(1, 16001, dtype=np.int16)
    card = room_card(near=write_wav(tmp_path / "near.wav", near, 16000))

    async def test() -> None:
        devices = MediaDevices(input_sample_rate=16000, output_sample_rate=16000)
        capture = devices.open_input(input_device=card, **PLAIN)
        player = devices.open_output(output_device=card)
        await player.start()
        out = [await heard(capture.source, 0.2)]
        end = time.monotonic() + 0.33
        while time.monotonic() < end:
            sum(range(100))
        out.append(await heard(capture.source, 0.5))
        assert capture.source.dropped == capture.input_stream.xruns == player.xruns == 0
        assert np.array_equal(np.concatenate(out), near[: 7 * 1600])
        await capture.aclose()
        await player.aclose()

    run(test())


def test_closing_one_leaves_the_other(room_card: RoomCard) -> None:
    card = room_card(noise_dbfs=-40)

    async def test() -> None:
        devices = MediaDevices()
        player = devices.open_output(output_device=card)
        await player.start()
        for _ in range(2):
            capture = devices.open_input(input_device=card)
            with pytest.raises(RuntimeError, match="open already"):
                devices.open_input(input_device=card)
            await heard(capture.source, 0.2)
            await capture.aclose()
            await asyncio.sleep(0.2)
        capture = devices.open_input(input_device=card)
        with pytest.raises(RuntimeError, match="open already"):
            devices.open_output(output_device=card)
        await heard(capture.source, 0.2)
        assert player.xruns == 0
        await player.aclose()
        await heard(capture.source, 0.2)
        assert capture.source.dropped == capture.input_stream.xruns == 0
        await capture.aclose()

    run(test())


# ---------- errors


def test_settings_that_no_device_could_have_are_refused() -> None:
    for wrong, words in (
        ({"input_sample_rate": 44100}, "input_sample_rate is 44100 Hz, expected one of 8000, 16000"),
        ({"output_sample_rate": 24000}, "output_sample_rate is 24000 Hz, expected one of 8000"),
        ({"num_channels": 0}, "num_channels is 0, expected 1 to 8"),
        ({"blocksize": 0}, "blocksize is 0, expected"),
    ):
        with pytest.raises(ValueError, match=words):
            MediaDevices(**wrong)  # type: ignore[arg-type]


def test_a_device_that_is_not_there_is_named(room_card: RoomCard) -> None:
    card = room_card()

    async def test() -> None:
        devices = MediaDevices()
        with pytest.raises(RuntimeError, match="'nowhere' does not exist"):
            devices.open_input(input_device="nowhere")
        with pytest.raises(RuntimeError, match="'nowhere' does not exist"):
            devices.open_output(output_device="nowhere")
        with pytest.raises(ValueError, match="device index is 99"):
            devices.open_input(input_device=99)
        with pytest.raises(ValueError, match="queue_capacity is 0"):
            devices.open_input(input_device=card, queue_capacity=0)

    run(test())


def test_outside_an_event_loop_nothing_is_opened() -> None:
    for opened in (MediaDevices().open_input, MediaDevices().open_output):
        with pytest.raises(RuntimeError, match="no running event loop"):
            opened()


def test_an_unplugged_microphone_is_said_and_the_speaker_plays_on(room_card: RoomCard) -> None:
    card = room_card(faults="capture:unplug@0.5")

    async def test() -> None:
        devices = MediaDevices()
        capture = devices.open_input(input_device=card)
        player = devices.open_output(output_device=card)
        await player.start()
        for _ in range(2):
            with pytest.raises(RuntimeError, match=f"microphone.device: '{card}' has gone"):
                await heard(capture.source, 5.0)
        with pytest.raises(RuntimeError, match="has gone"):
            await capture.task
        for _ in range(40):
            await player.play(AudioFrame.create(48000, 1, 480))
        await asyncio.sleep(0.2)
        assert player.xruns == 0 and player.task and not player.task.done()
        await capture.aclose()
        await player.aclose()

    run(test())


def test_an_unplugged_speaker_is_said_and_the_microphone_records_on(room_card: RoomCard) -> None:
    card = room_card(faults="playback:unplug@0.5")

    async def test() -> None:
        devices = MediaDevices()
        player = devices.open_output(output_device=card)
        await player.start()
        capture = devices.open_input(input_device=card)
        endless = Live([])
        await player.add_track(endless)
        with pytest.raises(RuntimeError, match=f"speaker.device: '{card}' has gone"):
            while True:
                await player.play(AudioFrame.create(48000, 1, 480))
        assert player.task
        with pytest.raises(RuntimeError, match="has gone"):
            await player.task
        await heard(capture.source, 0.5)
        await player.aclose()
        await capture.aclose()

    run(test())


def test_a_closed_player_says_so(room_card: RoomCard) -> None:
    card = room_card()

    async def test() -> None:
        devices = MediaDevices()
        for started in (False, True):
            player = devices.open_output(output_device=card)
            if started:
                await player.start()
            await player.aclose()
            await player.aclose()
            for call in (player.start(), player.play(AudioFrame.create(48000, 1, 480)), player.add_track(1)):
                with pytest.raises(RuntimeError, match="player is closed"):
                    await call

    run(test())


def test_who_cancels_the_task_ends_the_capture(room_card: RoomCard) -> None:
    card = room_card()

    async def test() -> None:
        devices = MediaDevices()
        capture = devices.open_input(input_device=card)
        await heard(capture.source, 0.1)
        capture.task.cancel()
        with pytest.raises(StopAsyncIteration):
            while True:
                await anext(capture.source)
        again = devices.open_input(input_device=card)
        await heard(again.source, 0.1)
        await again.aclose()

    run(test())


def test_frames_played_by_two_at_once_stay_whole(
    room_card: RoomCard, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Frames of any length, also 0: each is played in one piece, one after the other."""
    record = tmp_path / "played.wav"
    card = room_card(record=record)
    sounds = [noise(rng, 0.25, 16000) for _ in range(2)]

    async def test() -> None:
        player = MediaDevices(output_sample_rate=16000).open_output(output_device=card)
        await player.start()
        await asyncio.sleep(0.5)
        await player.play(AudioFrame.create(16000, 1, 0))
        await asyncio.gather(
            *(player.play(AudioFrame(sound.tobytes(), 16000, 1, len(sound))) for sound in sounds)
        )
        await asyncio.sleep(0.6)
        await player.aclose()

    run(test())
    played, wanted = played_from(record), np.concatenate(sounds)
    start = int(np.argmax(np.correlate(played.astype(float), wanted.astype(float), "valid")))
    assert np.array_equal(played[start : start + len(wanted)], wanted)


def test_an_overrun_is_counted_and_the_echo_stays_where_it_was(room_card: RoomCard) -> None:
    card = room_card(faults="capture:xrun@0.5 playback:xrun@0.8")

    async def test() -> None:
        devices = MediaDevices()
        capture = devices.open_input(input_device=card)
        player = devices.open_output(output_device=card)
        await player.start()
        await heard(capture.source, 0.4)
        assert capture.delay_estimator
        before_ms = capture.delay_estimator.delay_ms
        await heard(capture.source, 0.8)
        assert capture.input_stream.xruns >= 1 and player.xruns >= 1
        after_ms = capture.delay_estimator.delay_ms
        print(f"{before_ms:.3f} ms before, {after_ms:.3f} ms after")
        assert after_ms == pytest.approx(before_ms, abs=0.1)
        await capture.aclose()
        await player.aclose()

    run(test())


def test_a_program_that_forgets_to_close_ends(room_card: RoomCard) -> None:
    """The event loop has ended: the thread ends, and the device is free for the next program."""
    card = room_card()

    async def forgets() -> None:
        capture = MediaDevices().open_input(input_device=card)
        await heard(capture.source, 0.1)
        capture.task.cancel()

    async def opens() -> None:
        devices = MediaDevices()
        for _ in range(100):
            with contextlib.suppress(RuntimeError):
                capture = devices.open_input(input_device=card)
                break
            await asyncio.sleep(0.05)
        await heard(capture.source, 0.1)
        await capture.aclose()

    run(forgets())
    run(opens())
