"""What was learned, saved in one run and taken up in the next."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.drive import frame_of, heard, process
from reference.signals import RATES_HZ, Signal, at_level, db, power, room, to_int16, voice
from scipy.signal import fftconvolve

from apmpi import AudioFrame, AudioProcessingModule

ALL = {
    "echo_cancellation": True,
    "noise_suppression": True,
    "high_pass_filter": True,
    "auto_gain_control": True,
}


def far_and_echo(rng: np.random.Generator, rate_hz: int, restart_s: float) -> tuple[Signal, Signal]:
    """Far end and microphone of a call of restart_s + 2 s. Nothing is played for 0.5 s before restart_s, as
    nothing is while a device starts."""
    samples = round((restart_s + 2.0) * rate_hz)
    t = np.arange(samples) / rate_hz
    far = voice(rng, rate_hz, restart_s + 2.0, pitch_hz=120.0) * ((t < restart_s - 0.5) | (t >= restart_s))
    echo = np.roll(fftconvolve(far, room(rng, rate_hz))[:samples], round(0.04 * rate_hz))
    return far, echo + at_level(rng.standard_normal(samples), -70.0)


@pytest.mark.parametrize("far_first_blocks", [0, 4])
@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_a_restart_cancels_from_its_first_word_on(
    rng: np.random.Generator, rate_hz: int, far_first_blocks: int
) -> None:
    """As if it had not been; without a saved state the first word is heard. Also for callers who give some
    far-end blocks before their first microphone block, as they did the time before."""
    restart_s, block = 6.0, rate_hz // 100
    far, mic = far_and_echo(rng, rate_hz, restart_s)
    restart = round(restart_s * rate_hz)
    ahead = far_first_blocks * block
    first_s = 0.4
    reduction_db = {}
    saved = b""
    for run in ("before", "restarted", "anew"):
        apm = AudioProcessingModule(echo_cancellation=True)
        if run == "restarted":
            apm.load_state(saved)
        begin = 0 if run == "before" else restart
        early = far[begin : begin + ahead]
        for at in range(0, ahead, block):
            apm.process_reverse_stream(frame_of(to_int16(early[at : at + block]), rate_hz))
        far_part = np.concatenate([far[begin + ahead :], np.zeros(ahead)])
        out = heard(apm, rate_hz, mic[begin:], far_part)
        if run == "before":
            first = AudioProcessingModule(echo_cancellation=True)
            for at in range(0, ahead, block):
                first.process_reverse_stream(frame_of(to_int16(early[at : at + block]), rate_hz))
            process(first, rate_hz, to_int16(mic[:restart]), to_int16(far_part[:restart]))
            saved = first.save_state()
        heard_first = out[restart - begin :][: round(first_s * rate_hz)]
        reduction_db[run] = db(power(mic[restart:][: len(heard_first)])) - db(power(heard_first))
    told = ", ".join(f"{run} {value:.1f} dB" for run, value in reduction_db.items())
    print(f"{rate_hz} Hz, {len(saved)} bytes, echo reduced in the first {first_s} s: {told}")
    assert reduction_db["restarted"] > 12
    assert reduction_db["restarted"] > reduction_db["before"] - 1
    assert reduction_db["restarted"] > reduction_db["anew"] + 3


def trained(rng: np.random.Generator, rate_hz: int = 16000, channels: int = 1) -> AudioProcessingModule:
    apm = AudioProcessingModule(**ALL)
    sound = to_int16(0.05 * rng.standard_normal((rate_hz // 2, channels)))
    process(apm, rate_hz, sound, sound[:, 0].copy())
    return apm


def test_nothing_learned_is_nothing_saved() -> None:
    assert AudioProcessingModule(**ALL).save_state() == b""


def test_a_state_of_another_shape_is_refused(rng: np.random.Generator) -> None:
    state = trained(rng, 16000, 2).save_state()
    for rate_hz, channels in ((16000, 1), (48000, 2)):
        other = trained(rng, rate_hz, channels)
        before = other.save_state()
        with pytest.raises(ValueError, match="load_state: saved with another sample rate or number"):
            other.load_state(state)
        assert other.save_state() == before


def test_a_microphone_of_another_shape_starts_anew(rng: np.random.Generator) -> None:
    apm = AudioProcessingModule(**ALL)
    apm.load_state(trained(rng, 16000).save_state())
    apm.process_stream(AudioFrame.create(48000, 1, 480))
    assert apm.stats().delay_ms < 0


STATE = trained(np.random.default_rng(1)).save_state()


@settings(max_examples=300, derandomize=True)
@given(st.data())
def test_damage_is_refused_with_a_reason(data: st.DataObject) -> None:
    damaged = bytearray(STATE)
    match data.draw(st.sampled_from(["bytes", "cut", "more", "other"])):
        case "bytes":
            for _ in range(data.draw(st.integers(1, 4))):
                at = data.draw(st.integers(0, 31) | st.integers(0, len(damaged) - 1))
                damaged[at] ^= data.draw(st.integers(1, 255))
        case "cut":
            del damaged[data.draw(st.integers(0, len(damaged) - 1)) :]
        case "more":
            damaged += data.draw(st.binary(min_size=1, max_size=9))
        case "other":
            damaged = bytearray(data.draw(st.binary(max_size=99)))
    if bytes(damaged) == STATE:  # two changes of one byte may cancel out
        return
    fresh, used = AudioProcessingModule(**ALL), trained(np.random.default_rng(2))
    for apm in (fresh, used):
        before = apm.save_state()
        with pytest.raises(ValueError, match=r"^load_state: (not a saved state|saved |damaged|holds values)"):
            apm.load_state(bytes(damaged))
        assert apm.save_state() == before


@pytest.mark.parametrize("wrong", [None, "state", 5])
def test_what_is_no_bytes_is_a_type_error(wrong: object) -> None:
    with pytest.raises(TypeError):
        AudioProcessingModule().load_state(wrong)  # type: ignore[arg-type]


def test_saving_while_sound_goes_through(rng: np.random.Generator) -> None:
    """From another thread, as fast as it can: each state is whole, and the sound is the same as without."""
    sound = to_int16(0.05 * rng.standard_normal(3 * 16000))
    quiet, watched = AudioProcessingModule(**ALL), AudioProcessingModule(**ALL)
    expected = process(quiet, 16000, sound, sound)
    watched.process_stream(AudioFrame.create(16000, 1, 160))
    watched.reset()
    states: list[bytes] = []
    done = threading.Event()

    def save() -> None:
        while not done.is_set():
            states.append(watched.save_state())

    thread = threading.Thread(target=save)
    thread.start()
    out = process(watched, 16000, sound, sound)
    done.set()
    thread.join()
    print(f"{len(states)} states saved, {len(set(states))} different")
    assert len(set(states)) > 1
    for state in set(states):
        AudioProcessingModule().load_state(state)
    assert np.array_equal(out, expected)
