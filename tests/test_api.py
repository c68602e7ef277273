"""The public API in a program's use: frames, errors that change nothing, shapes, figures, threads."""

from __future__ import annotations

import dataclasses
import inspect
import io
import math
import os
import signal
import threading
import wave
from collections.abc import Callable

import numpy as np
import pytest
from reference.drive import AnyFrame, Samples, frame_of, process
from reference.signals import RATES_HZ, Signal, at_level, db, from_int16, power, room, scene, to_int16, voice
from scipy.signal import fftconvolve

from apmpi import AudioFrame, AudioProcessingModule, Stats
from apmpi.errors import ConfigError
from apmpi.service.yaml_reader import parse
from apmpi.settings import Features, Tuning, rows

ALL = {
    "echo_cancellation": True,
    "noise_suppression": True,
    "high_pass_filter": True,
    "auto_gain_control": True,
}


def loud(rng: np.random.Generator, rate_hz: int, blocks: int, channels: int = 1) -> Samples:
    """Blocks of noise at -20 dBFS; mono is one-dimensional."""
    shape = (blocks * rate_hz // 100, channels) if channels > 1 else (blocks * rate_hz // 100,)
    return to_int16(at_level(rng.standard_normal(shape), -20.0))


# ---------- AudioFrame


def test_frame_keeps_what_it_was_given() -> None:
    frame = AudioFrame(b"\x01\x00\x02\x00\x03\x00\x04\x00", 16000, 2, 2, userdata={"a": 1})
    assert (frame.sample_rate, frame.num_channels, frame.samples_per_channel) == (16000, 2, 2)
    assert frame.data.format == "h" and frame.data.tolist() == [1, 2, 3, 4]
    assert frame.duration == 2 / 16000
    assert frame.userdata == {"a": 1}
    assert AudioFrame(b"", 8000, 1, 0).userdata == {}


def test_frame_copies_only_what_is_read_only() -> None:
    shared = bytearray(320)
    frame = AudioFrame(shared, 16000, 1, 160)
    frame.data[0] = 77
    assert shared[0] == 77
    frame = AudioFrame(memoryview(shared), 16000, 1, 160)
    frame.data[0] = 78
    assert shared[0] == 78
    for fixed in (bytes(320), memoryview(bytes(320))):
        frame = AudioFrame(fixed, 16000, 1, 160)
        frame.data[0] = 1
        assert bytes(fixed) == bytes(320)


def test_created_frame_is_silent() -> None:
    frame = AudioFrame.create(48000, 2, 480)
    assert frame.data.tolist() == [0] * 960 and not frame.data.readonly
    assert (frame.sample_rate, frame.num_channels, frame.samples_per_channel) == (48000, 2, 480)


def test_frame_takes_samples_of_any_buffer_type() -> None:
    samples = np.arange(160, dtype=np.int16)
    assert AudioFrame(memoryview(samples), 16000, 1, 160).data.tolist() == samples.tolist()


def test_wrong_frames_are_refused_by_the_usual_words() -> None:
    for data in ("text", [1, 2], None, 3, np.zeros(160, np.int16)):
        with pytest.raises(TypeError, match="expected bytes, bytearray, or memoryview, got"):
            AudioFrame(data, 16000, 1, 160)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"data length must be >= num_channels \* samples_per_channel \* sizeof\(int16\)"
    ):
        AudioFrame(bytes(318), 16000, 1, 160)
    with pytest.raises(ValueError, match=r"data length must be a multiple of sizeof\(int16\)"):
        AudioFrame(bytes(321), 16000, 1, 160)


def test_frame_as_wav_holds_its_samples_and_no_more() -> None:
    samples = np.arange(-200, 200, dtype=np.int16)
    with wave.open(io.BytesIO(AudioFrame(samples.tobytes(), 8000, 2, 80).to_wav_bytes())) as wav:
        assert (wav.getframerate(), wav.getnchannels(), wav.getsampwidth()) == (8000, 2, 2)
        assert wav.readframes(1000) == samples[:160].tobytes()


def test_frames_and_arrays_share_their_memory() -> None:
    for shape in ((160,), (160, 1), (160, 3)):
        samples = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
        frame = AudioFrame.from_ndarray(samples, 16000)
        channels = shape[1] if len(shape) == 2 else 1
        assert (frame.sample_rate, frame.num_channels, frame.samples_per_channel) == (16000, channels, 160)
        assert frame.data.tolist() == samples.reshape(-1).tolist()
        frame.data[5] = -1
        assert samples.reshape(-1)[5] == -1
        samples.reshape(-1)[6] = -2
        back = frame.to_ndarray()
        assert back.shape == (160, channels) and back.dtype == np.int16 and back.reshape(-1)[6] == -2
        back[0, 0] = -3
        assert frame.data[0] == -3 and samples.reshape(-1)[0] == -3


def test_an_array_is_processed_where_it_lies(rng: np.random.Generator) -> None:
    samples = loud(rng, 16000, 1)
    before = samples.copy()
    AudioProcessingModule(**ALL).process_stream(AudioFrame.from_ndarray(samples, 16000))
    assert not np.array_equal(samples, before)


def test_a_larger_buffer_gives_an_array_of_the_frame_alone() -> None:
    assert AudioFrame(bytearray(1000), 16000, 2, 160).to_ndarray().shape == (160, 2)
    assert AudioFrame(b"", 8000, 1, 0).to_ndarray().shape == (0, 1)


def test_a_read_only_array_is_copied() -> None:
    samples = np.frombuffer(bytes(320), np.int16)
    frame = AudioFrame.from_ndarray(samples, 16000)
    frame.data[0] = 1
    assert samples[0] == 0 and frame.to_ndarray()[0, 0] == 1


def test_arrays_that_cannot_be_a_frame_are_refused() -> None:
    for wrong, words in ((np.zeros(160), "float64"), (np.zeros(160, ">i2"), ">i2"), ([0] * 160, "list")):
        with pytest.raises(TypeError, match=f"expected an int16 array, got .*{words}"):
            AudioFrame.from_ndarray(wrong, 16000)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"shape \(160, 1, 1\), expected \(samples_per_channel,\)"):
        AudioFrame.from_ndarray(np.zeros((160, 1, 1), np.int16), 16000)
    for strided in (np.zeros(320, np.int16)[::2], np.zeros((2, 160), np.int16).T):
        with pytest.raises(ValueError, match="C-contiguous"):
            AudioFrame.from_ndarray(strided, 16000)


# ---------- errors


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("call", ["process_stream", "process_reverse_stream"])
def test_not_ten_milliseconds_names_both_counts(rate_hz: int, call: str) -> None:
    right = rate_hz // 100
    apm = AudioProcessingModule(**ALL)
    for wrong in (0, 1, right - 1, right + 1, 2 * right):
        for channels in (1, 2):
            frame = AudioFrame.create(rate_hz, channels, wrong)
            with pytest.raises(RuntimeError, match=rf"\b{wrong}\b.*\b{right}\b"):
                getattr(apm, call)(frame)


def wrong_calls(apm: AudioProcessingModule) -> list[tuple[str, Callable[[], None]]]:
    """Every wrong call, for a module at 16 kHz mono, with the text that its message must contain."""
    both = (apm.process_stream, apm.process_reverse_stream)
    calls: list[tuple[str, Callable[[], None]]] = []
    for method in both:
        for rate in (0, -16000, 7000, 11025, 44100, 96000):
            calls.append(
                (rf"{rate} Hz.*8000.*48000", lambda m=method, r=rate: m(AnyFrame(bytearray(9000), r)))
            )
        for channels in (0, 9, -1, 1000):
            calls.append(
                (
                    rf"{channels} channels.*1 to 8",
                    lambda m=method, c=channels: m(AnyFrame(bytearray(9000), 16000, c)),
                )
            )
        for count in (0, -160, 159, 161, 320):
            calls.append(
                (rf"{count}\D.*160", lambda m=method, n=count: m(AnyFrame(bytearray(9000), 16000, 1, n)))
            )
        # declares 10 ms, holds less; strided
        calls.append(("318.*320", lambda m=method: m(AnyFrame(bytearray(318)))))
        calls.append(("contiguous", lambda m=method: m(AnyFrame(memoryview(bytearray(640)).cast("h")[::2]))))
    # read-only, in the running shape and in others: the buffer must not be the last thing checked
    calls.append(("writable|read-only", lambda: apm.process_stream(AnyFrame(bytes(320)))))
    calls.append(("writable|read-only", lambda: apm.process_stream(AnyFrame(bytes(960), 48000, 1, 480))))
    calls.append(("writable|read-only", lambda: apm.process_stream(AnyFrame(bytes(640), 16000, 2, 160))))
    calls.append(("958.*960", lambda: apm.process_stream(AnyFrame(bytearray(958), 48000, 1, 480))))
    # the far end at another rate than the microphone
    calls.append(
        (r"48000.*16000", lambda: apm.process_reverse_stream(AnyFrame(bytearray(960), 48000, 1, 480)))
    )
    for delay in (-1, 501, 10**30, "x", None, 1.5):
        calls.append((r"0 to 500 ms", lambda d=delay: apm.set_stream_delay_ms(d)))
    return calls


def test_every_wrong_call_is_a_runtime_error_and_changes_nothing(rng: np.random.Generator) -> None:
    """A second module that receives no wrong calls gives the same samples."""
    sound = scene(rng, 16000, 4.0)
    mic, far = to_int16(sound.mic), to_int16(sound.far)
    tried, twin = AudioProcessingModule(**ALL), AudioProcessingModule(**ALL)
    wrong = wrong_calls(tried)
    step = 160 * 5
    warm = 16000
    assert np.array_equal(
        process(tried, 16000, mic[:warm], far[:warm]), process(twin, 16000, mic[:warm], far[:warm])
    )
    for number, (words, call) in enumerate(wrong):
        with pytest.raises(RuntimeError, match=words):
            call()
        now = slice(warm + number * step, warm + (number + 1) * step)
        assert len(mic[now]) == step
        same = np.array_equal(
            process(tried, 16000, mic[now], far[now]), process(twin, 16000, mic[now], far[now])
        )
        assert same and tried.stats() == twin.stats(), f"state differs after the call that must say {words!r}"


def test_an_error_before_the_first_frame_is_no_start() -> None:
    apm = AudioProcessingModule(**ALL)
    with pytest.raises(RuntimeError):
        apm.process_stream(AudioFrame.create(48000, 1, 479))
    with pytest.raises(RuntimeError):
        apm.process_stream(AnyFrame(bytes(960), 48000, 1, 480))
    assert apm.latency_ms == 0.0 and apm.stats() == Stats()
    apm.process_reverse_stream(
        AudioFrame.create(16000, 1, 160)
    )  # would be refused if 48 kHz had been taken up


def test_delay_hint_takes_whole_milliseconds_from_0_to_500() -> None:
    apm = AudioProcessingModule(echo_cancellation=True)
    for delay in (0, 1, 499, 500, np.int64(40)):
        apm.set_stream_delay_ms(delay)  # type: ignore[arg-type]
    for delay in (True, 40.0):
        with pytest.raises(RuntimeError, match=f"{delay}.*0 to 500 ms"):
            apm.set_stream_delay_ms(delay)  # type: ignore[arg-type]


def test_flags_are_keyword_only() -> None:
    with pytest.raises(TypeError):
        AudioProcessingModule(True)  # type: ignore[misc]
    with pytest.raises(TypeError):
        AudioProcessingModule(echo=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        AudioProcessingModule().configure(echo=True)  # type: ignore[call-arg]


def test_flags_are_true_or_false() -> None:
    for wrong in ("off", None, 0.5, [True]):
        with pytest.raises(TypeError):
            AudioProcessingModule(high_pass_filter=wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        AudioProcessingModule(noise_suppression=None)  # type: ignore[arg-type]
    for wrong in (0.5, [True]):
        with pytest.raises(TypeError):
            AudioProcessingModule().configure(noise_suppression=wrong)  # type: ignore[arg-type]


def test_settings_have_ranges() -> None:
    with pytest.raises(
        ValueError, match=r"noise_suppression: got 'off'.*low, moderate, high, very_high, auto"
    ):
        AudioProcessingModule(noise_suppression="off")
    for name, row in rows(Tuning).items():
        low, high = row.low, row.high
        for good in (low, high, round(low) + 1):
            AudioProcessingModule(**{name: good})  # type: ignore[arg-type]
            parse(f"microphone: {{device: x}}\ntuning: {{{name}: {good:g}}}", "")
        apm = AudioProcessingModule()
        for bad in (low - 0.1, high + 0.1, math.nan, math.inf):
            with pytest.raises(ValueError, match=f"{name}: got .*, expected {low:g} to {high:g}"):
                apm.configure(**{name: bad})  # type: ignore[arg-type]
        for odd in ("80", True, [80]):
            with pytest.raises(TypeError, match=name):
                apm.configure(**{name: odd})  # type: ignore[arg-type]
        for bad in (low - 1, high + 1):
            with pytest.raises(ConfigError, match=f"tuning.{name}"):
                parse(f"microphone: {{device: x}}\ntuning: {{{name}: {bad:g}}}", "")


def test_every_setting_of_a_configuration_is_a_keyword() -> None:
    """Settings of the chain (features, delay, latency) are keywords of the module, by the same names, and so
    are the microphones' positions.
    """
    keywords = set(inspect.signature(AudioProcessingModule).parameters) - {"microphone_positions_mm"}
    told = {field.name for part in (Features, Tuning) for field in dataclasses.fields(part)}
    assert told | {"low_latency", "stream_delay_ms"} == keywords


def test_the_delay_as_a_keyword(rng: np.random.Generator) -> None:
    told, later = AudioProcessingModule(**ALL, stream_delay_ms=120), AudioProcessingModule(**ALL)
    later.set_stream_delay_ms(120)
    mic, far = loud(rng, 16000, 50), loud(rng, 16000, 50)
    assert np.array_equal(process(told, 16000, mic, far), process(later, 16000, mic, far))
    for delay in (-1, 501, True):
        with pytest.raises(RuntimeError, match=f"{delay}.*0 to 500 ms"):
            AudioProcessingModule(stream_delay_ms=delay)


# ---------- shapes


def test_microphone_in_place_far_end_untouched(rng: np.random.Generator) -> None:
    apm = AudioProcessingModule(**ALL)
    far, mic = loud(rng, 16000, 20), loud(rng, 16000, 20)
    for at in range(0, len(mic), 160):
        far_frame, mic_buffer = frame_of(far[at : at + 160], 16000), bytearray(mic[at : at + 160].tobytes())
        apm.process_reverse_stream(far_frame)
        assert far_frame.data.tobytes() == far[at : at + 160].tobytes()
        mic_frame = AudioFrame(mic_buffer, 16000, 1, 160)
        apm.process_stream(mic_frame)
        assert mic_buffer != mic[at : at + 160].tobytes() and mic_frame.data.tobytes() == mic_buffer


def test_a_read_only_far_end_is_fine() -> None:
    AudioProcessingModule(**ALL).process_reverse_stream(AnyFrame(bytes(320)))


@pytest.mark.parametrize("channels", [1, 3])
def test_only_the_frame_is_touched_in_a_larger_buffer(rng: np.random.Generator, channels: int) -> None:
    """Also at every address: a view into a larger buffer may begin anywhere."""
    large, exact = AudioProcessingModule(**ALL), AudioProcessingModule(**ALL)
    mic = loud(rng, 48000, 9, channels)
    for number, at in enumerate(range(0, len(mic), 480)):
        samples = mic[at : at + 480].tobytes()
        guard = bytes(rng.integers(0, 256, 64, np.uint8))
        buffer = bytearray(guard[:number] + samples + guard)
        view = memoryview(buffer)[number:]
        frame = frame_of(mic[at : at + 480], 48000)
        exact.process_stream(frame)
        large.process_stream(AudioFrame(view, 48000, channels, 480))
        assert view[: len(samples)].tobytes() == frame.data.tobytes()
        assert buffer[:number] == guard[:number] and view[len(samples) :].tobytes() == guard


@pytest.mark.parametrize("channels", range(1, 9))
def test_every_channel_cancels_its_own_echo(rng: np.random.Generator, channels: int) -> None:
    """Each channel has a room of its own; each echo is reduced by 15 dB after three seconds. (20 dB within
    five seconds is required elsewhere; a channel may not be much worse than a single one.)
    """
    sounds = [scene(np.random.default_rng([7, room]), 8000, 5.0) for room in range(channels)]
    far = sounds[0].far
    # the far end of room 0 is played; every room has its own impulse response
    responses = [_response(sound.far, sound.echo) for sound in sounds]
    echoes = np.stack([np.convolve(far, response)[: len(far)] for response in responses], axis=1)
    apm = AudioProcessingModule(echo_cancellation=True)
    out = from_int16(process(apm, 8000, to_int16(echoes[:, 0] if channels == 1 else echoes), to_int16(far)))
    out = out.reshape(len(far), channels)
    late = slice(3 * 8000, None)
    for c in range(channels):
        erle_db = 10.0 * np.log10(power(echoes[late, c]) / max(power(out[late, c]), 1e-12))
        print(f"channel {c + 1} of {channels}: echo {erle_db:.1f} dB down")
        assert erle_db > 15.0


def _response(far: np.ndarray, echo: np.ndarray, length: int = 4096) -> np.ndarray:
    """Impulse response from far to echo, by division of spectra."""
    size = 1 << (2 * len(far)).bit_length()
    spectrum = np.fft.rfft(far, size)
    quotient = (
        np.fft.rfft(echo, size)
        * spectrum.conj()
        / (np.abs(spectrum) ** 2 + 1e-9 * np.max(np.abs(spectrum) ** 2))
    )
    return np.fft.irfft(quotient)[:length]


def test_channels_do_not_hear_each_other(rng: np.random.Generator) -> None:
    """Without gain control the output of a channel is independent of the other channels."""
    mic = to_int16(np.stack([voice(rng, 16000, 2.0), at_level(rng.standard_normal(32000), -40.0)], axis=1))
    flags = {**ALL, "auto_gain_control": False}
    together = process(AudioProcessingModule(**flags), 16000, mic)
    for c in (0, 1):
        alone = process(AudioProcessingModule(**flags), 16000, np.ascontiguousarray(mic[:, c]))
        assert np.array_equal(together[:, c], alone)


def test_gain_is_linked_so_that_channels_keep_their_balance(rng: np.random.Generator) -> None:
    talker = voice(rng, 16000, 6.0, -40.0)
    mic = to_int16(np.stack([talker, talker * 0.5], axis=1))
    out = from_int16(process(AudioProcessingModule(auto_gain_control=True), 16000, mic))
    late = out[4 * 16000 :]
    assert power(late[:, 0]) > 2.0 * power(from_int16(mic[4 * 16000 :, 0])), "the gain did nothing"
    balance_db = 10.0 * np.log10(power(late[:, 0]) / power(late[:, 1]))
    print(f"balance {balance_db:.3f} dB")
    assert balance_db == pytest.approx(6.02, abs=0.1)


@pytest.mark.parametrize("channels", [2, 4, 7])
def test_loudspeakers_that_play_the_same_are_one(rng: np.random.Generator, channels: int) -> None:
    sound = scene(rng, 16000, 3.0, near_from_s=2.0)
    mic, mono = to_int16(sound.mic), to_int16(sound.far)
    one = process(AudioProcessingModule(**ALL), 16000, mic, mono)
    several = process(AudioProcessingModule(**ALL), 16000, mic, np.repeat(mono[:, None], channels, axis=1))
    assert np.array_equal(one, several)


def two_loudspeakers(rng: np.random.Generator, rate_hz: int, far: list[Signal]) -> Signal:
    """Microphone signal: what all play, 40 ms later, each by a path of its own, and noise."""
    echo = sum(fftconvolve(x, room(rng, rate_hz, 0.2))[: len(x)] for x in far)
    late = np.concatenate([np.zeros(rate_hz // 25), echo])[: len(far[0])]
    return late + at_level(rng.standard_normal(len(late)), -75.0)


@pytest.mark.parametrize("plays", ["inverted", "two talkers", "one who moves", "two of four channels"])
def test_echo_of_two_loudspeakers(rng: np.random.Generator, plays: str) -> None:
    """The echo is cancelled whatever the loudspeakers play, and seen in the figures. A single reference, the
    mean of both, cancels 0 to 7 dB of it."""
    rate_hz, seconds = 16000, 8.0
    talker = voice(rng, rate_hz, seconds)
    at_left = np.arange(len(talker)) // rate_hz % 2 == 0
    far = {
        "inverted": [talker, -talker],
        "two talkers": [talker, voice(rng, rate_hz, seconds)],
        "two of four channels": [0.0 * talker, talker, -0.5 * talker, voice(rng, rate_hz, seconds)],
        "one who moves": [talker * at_left, talker * ~at_left],
    }[plays]
    mic = two_loudspeakers(rng, rate_hz, far)
    module = AudioProcessingModule(echo_cancellation=True)
    out = from_int16(process(module, rate_hz, to_int16(mic), to_int16(np.stack(far, axis=1))))
    late = slice(round(5.0 * rate_hz), None)
    reduced_db = db(power(mic[late]) / power(out[late]))
    print(f"{plays}: {reduced_db:.1f} dB")
    assert reduced_db > 25.0
    assert module.stats().reference_present
    assert module.stats().converged


def test_a_second_loudspeaker_comes_later(rng: np.random.Generator) -> None:
    """The first stereo frame keeps what was learned; the second loudspeaker is cancelled, too."""
    rate_hz = 16000
    talkers = [voice(rng, rate_hz, 8.0), voice(rng, rate_hz, 8.0) * (np.arange(8 * rate_hz) >= 4 * rate_hz)]
    mic, half = two_loudspeakers(rng, rate_hz, talkers), 4 * rate_hz
    module = AudioProcessingModule(echo_cancellation=True)
    process(module, rate_hz, to_int16(mic[:half]), to_int16(talkers[0][:half]))
    delay_ms = module.stats().delay_ms
    stereo = to_int16(np.stack(talkers, axis=1))[half:]
    out = from_int16(process(module, rate_hz, to_int16(mic[half:]), stereo))
    assert module.stats().delay_ms == delay_ms
    late = slice(2 * rate_hz, None)
    assert db(power(mic[half:][late]) / power(out[late])) > 20.0


@pytest.mark.parametrize("shape", [(48000, 1), (16000, 2), (8000, 3)])
def test_another_shape_starts_anew_and_keeps_the_settings(
    rng: np.random.Generator, shape: tuple[int, int]
) -> None:
    rate_hz, channels = shape
    changed, fresh = AudioProcessingModule(), AudioProcessingModule(**ALL)
    changed.configure(**ALL)
    for apm in (changed, fresh):
        apm.set_stream_delay_ms(120)
    process(changed, 16000, loud(rng, 16000, 50), loud(rng, 16000, 50))
    mic, far = loud(rng, rate_hz, 100, channels), loud(rng, rate_hz, 100)
    first = rate_hz // 100
    # the first microphone frame decides; it must not have to wait for the far end
    assert np.array_equal(process(changed, rate_hz, mic[:first]), process(fresh, rate_hz, mic[:first]))
    assert np.array_equal(
        process(changed, rate_hz, mic[first:], far[first:]), process(fresh, rate_hz, mic[first:], far[first:])
    )


def test_reset_is_a_fresh_start_that_keeps_the_settings(rng: np.random.Generator) -> None:
    used, fresh = AudioProcessingModule(**ALL), AudioProcessingModule(**ALL)
    for apm in (used, fresh):
        apm.set_stream_delay_ms(120)
    sound = scene(rng, 16000, 2.0)
    process(used, 16000, to_int16(sound.mic), to_int16(sound.far))
    used.reset()
    mic, far = loud(rng, 16000, 200), loud(rng, 16000, 200)
    # first without echo cancellation: the canceller's old state must not return later
    for flags in ({"echo_cancellation": False}, {"echo_cancellation": True}):
        for apm in (used, fresh):
            apm.configure(**flags)
        assert np.array_equal(process(used, 16000, mic, far), process(fresh, 16000, mic, far)), flags


# ---------- figures


def test_figures_of_an_echo(rng: np.random.Generator) -> None:
    apm = AudioProcessingModule(echo_cancellation=True)
    assert apm.stats() == Stats()
    sound = scene(rng, 16000, 8.0, far_until_s=6.0, near_from_s=6.5)
    far, mic = to_int16(sound.far), to_int16(sound.mic)
    process(apm, 16000, mic[: 5 * 16000], far[: 5 * 16000])
    stats = apm.stats()
    print(stats)
    assert stats.delay_ms == pytest.approx(40.0, abs=10.0) and 0.5 < stats.delay_confidence <= 1.0
    assert (
        stats.converged and stats.erle_db > 15.0 and stats.reference_present and not stats.microphone_clipping
    )
    # smoothed over speech, so within 3 dB of the long average
    assert stats.erl_db == pytest.approx(10.0 * np.log10(power(sound.far) / power(sound.echo)), abs=3.0)
    process(apm, 16000, mic[5 * 16000 :], far[5 * 16000 :])
    stats = apm.stats()
    assert (
        not stats.reference_present
        and not stats.double_talk
        and stats.delay_ms == pytest.approx(40.0, abs=10.0)
    )


def test_figures_of_a_room_without_a_far_end(rng: np.random.Generator) -> None:
    apm = AudioProcessingModule(echo_cancellation=True, noise_suppression=True)
    process(apm, 16000, to_int16(at_level(rng.standard_normal(5 * 16000), -50.0)))
    stats = apm.stats()
    print(stats)
    assert stats.noise_floor_dbfs == pytest.approx(-50.0, abs=3.0)
    assert stats.speech_probability < 0.5 and not stats.converged and not stats.reference_present
    process(apm, 16000, np.full(160, 32767, np.int16))
    assert apm.stats().microphone_clipping
    process(apm, 16000, np.zeros(2 * 16000, np.int16))
    assert not apm.stats().microphone_clipping


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_latency_is_at_most_ten_milliseconds(rate_hz: int) -> None:
    latencies = set()
    for flags in ({}, ALL):
        apm = AudioProcessingModule(**flags)
        apm.process_stream(AudioFrame.create(rate_hz, 1, rate_hz // 100))
        latencies.add(apm.latency_ms)
    assert len(latencies) == 1 and 0.0 < latencies.pop() <= 10.0


# ---------- threads, forks


def test_modules_do_not_know_of_each_other(rng: np.random.Generator) -> None:
    """Two modules that take turns, at two rates, give the same output as each alone."""
    sounds = {rate_hz: scene(rng, rate_hz, 1.0) for rate_hz in (16000, 48000)}
    alone = {
        rate_hz: process(AudioProcessingModule(**ALL), rate_hz, to_int16(s.mic), to_int16(s.far))
        for rate_hz, s in sounds.items()
    }
    modules = {rate_hz: AudioProcessingModule(**ALL) for rate_hz in sounds}
    for number in range(100):
        for rate_hz, sound in sounds.items():
            now = slice(number * rate_hz // 100, (number + 1) * rate_hz // 100)
            out = process(modules[rate_hz], rate_hz, to_int16(sound.mic[now]), to_int16(sound.far[now]))
            assert np.array_equal(out, alone[rate_hz][now])


def test_far_end_and_microphone_in_threads_of_their_own(rng: np.random.Generator) -> None:
    """Two audio threads and a third that reads figures and changes settings: all finish, and nothing is
    refused.
    """
    apm = AudioProcessingModule(**ALL)
    sound = scene(rng, 16000, 6.0)
    mic, far = to_int16(sound.mic), to_int16(sound.far)
    failures: list[BaseException] = []
    done = threading.Event()

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)

        return run

    def render() -> None:
        for at in range(0, len(far), 160):
            apm.process_reverse_stream(frame_of(far[at : at + 160], 16000))

    def capture() -> None:
        out = process(apm, 16000, mic)
        assert np.any(out[-16000:])
        done.set()

    def watch() -> None:
        number = 0
        while not done.wait(0.001):
            number += 1
            assert np.isfinite(apm.stats().delay_ms)
            apm.set_stream_delay_ms(number % 500)
            apm.configure(noise_suppression=number % 2 == 0)

    threads = [threading.Thread(target=guarded(work)) for work in (render, capture, watch)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
        done.set()
    assert not failures and not any(thread.is_alive() for thread in threads)


# numpy keeps threads of its own; they hold nothing that the child needs
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_goes_on_with_a_copy(rng: np.random.Generator) -> None:
    apm = AudioProcessingModule(**ALL)
    mic, far = loud(rng, 16000, 100), loud(rng, 16000, 100)
    process(apm, 16000, mic, far)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # no code of pytest may run here
        os.write(writer, process(apm, 16000, mic, far)[-320:].tobytes())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        from_child = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    assert from_child == process(apm, 16000, mic, far)[-320:].tobytes()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_in_the_middle_of_a_block_goes_on(rng: np.random.Generator) -> None:
    """Threads that do not exist in the child may have been inside the module: nothing stays locked."""
    apm = AudioProcessingModule(**ALL)
    mic, far = loud(rng, 48000, 20), loud(rng, 48000, 20)
    process(apm, 48000, mic, far)
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            process(apm, 48000, mic, far)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for number in range(20):
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # a lock that is never released ends this child
                process(apm, 48000, mic, far)
                apm.configure(noise_suppression=False)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0, f"fork {number}"
    finally:
        done.set()
        thread.join()
