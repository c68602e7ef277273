"""Several microphones as one beam (`array`): noise from elsewhere is weaker, the talker is not changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import RoomCard
from reference.drive import heard, process
from reference.signals import Signal, at_level, db, from_int16, power, room, si_sdr_db, to_int16, voice
from scipy.signal import fftconvolve, lfilter

from apmpi import AudioProcessingModule
from apmpi.service import run as service
from apmpi.settings import Endpoint, Features, Settings

RATE_HZ = 16000
CLEAN = {"noise_suppression": True, "high_pass_filter": True}
# Samples from the first microphone to each of four in a line, 45 mm apart, for sound from either end.
FROM_LEFT, FROM_RIGHT = (0, 2, 4, 6), (6, 4, 2, 0)


def at_microphones(rng: np.random.Generator, sound: Signal, delays: tuple[int, ...]) -> Signal:
    """Sound as [channels, samples]: a direct path, and a reverberation of 0.3 s at -6 dB."""
    tail = lfilter([1.0], [1.0, -0.5], sound)
    return np.array([
        np.pad(sound, (delay, 0))[: len(sound)]
        + at_level(fftconvolve(tail, room(rng, RATE_HZ)[160:])[: len(sound)], db(power(sound)) - 6.0)
        for delay in delays
    ])  # fmt: skip


def fan(rng: np.random.Generator, seconds: float, level_dbfs: float) -> Signal:
    """Steady noise that falls by 6 dB an octave above 1 kHz."""
    noise = lfilter([1.0], [1.0, -0.7], rng.standard_normal(round(seconds * RATE_HZ)))
    return at_level(noise, level_dbfs)


def processed(apm: AudioProcessingModule, mic: Signal, far: Signal | None = None) -> Signal:
    """Return the output for [channels, samples], in that shape."""
    return heard(apm, RATE_HZ, mic.T, far).T


# Level of each microphone, and the least gain in SI-SDR. Voice and noise are random: of six of them the gains
# were 1.4 to 3.2 dB, with the first one dead -1.5 to 1.5 dB.
FAULTS = {
    "none": ((1.0, 1.0, 1.0, 1.0), 0.5),
    "the first is dead": ((0.0, 1.0, 1.0, 1.0), -3.0),
    "the first is covered": ((0.1, 1.0, 1.0, 1.0), 0.5),
    "the second is inverted": ((1.0, -1.0, 1.0, 1.0), 0.5),
    "the third is 3 dB louder": ((1.0, 1.0, 1.41, 1.0), 0.5),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_noise_from_elsewhere_is_weaker_and_no_microphone_spoils_it(
    rng: np.random.Generator, fault: str
) -> None:
    """A talker at the left, a fan at the right 5 dB below; the best microphone is one without fault."""
    near = at_microphones(rng, voice(rng, RATE_HZ, 8.0) * (np.arange(8 * RATE_HZ) > RATE_HZ), FROM_LEFT)
    mic = near + at_microphones(rng, fan(rng, 8.0, -31.0), FROM_RIGHT)
    settled = slice(3 * RATE_HZ, None)

    def ratio_db(out: Signal) -> float:
        return max(si_sdr_db(out[settled], microphone[settled]) for microphone in near)

    levels, least_db = FAULTS[fault]
    apm = AudioProcessingModule(**CLEAN, array=True)
    alone = processed(AudioProcessingModule(**CLEAN), mic)
    out = processed(apm, mic * np.array(levels)[:, None])
    single_db, beam_db = max(ratio_db(x) for x in alone), ratio_db(out[0])
    print(f"SI-SDR of the best microphone {single_db:.1f} dB, of the beam {beam_db:.1f} dB;", end=" ")
    print(f"noise attenuated by {apm.stats().array_gain_db:.1f} dB")
    assert np.ptp(out, axis=0).max() == 0.0, "every channel has the beam"
    assert beam_db > single_db + least_db and apm.stats().array_gain_db > 2.0


def test_in_a_quiet_room_the_beam_is_one_microphone(rng: np.random.Generator) -> None:
    near = at_microphones(rng, voice(rng, RATE_HZ, 6.0), FROM_LEFT)
    mic = near + 10 ** (-75 / 20) * rng.standard_normal(near.shape)
    out = processed(AudioProcessingModule(**CLEAN, array=True), mic)[0]
    talker = processed(AudioProcessingModule(high_pass_filter=True), near)[0]
    settled = slice(RATE_HZ, None)
    distortion_db = -si_sdr_db(out[settled], talker[settled])
    level_db = db(power(out[settled])) - db(power(talker[settled]))
    print(f"distortion {distortion_db:.1f} dB, level {level_db:+.2f} dB")
    assert distortion_db < -20.0 and abs(level_db) < 0.5


def test_a_talker_who_changes_sides_is_followed_within_half_a_second(rng: np.random.Generator) -> None:
    """The fan is where the talker goes; the beam may attenuate it no more than a bound at once."""
    count = 8 * RATE_HZ
    said, moved = voice(rng, RATE_HZ, 8.0), np.arange(count) >= 4 * RATE_HZ
    near = at_microphones(rng, said * ~moved, FROM_LEFT) + at_microphones(rng, said * moved, FROM_RIGHT)
    mic = near + at_microphones(rng, fan(rng, 8.0, -46.0), FROM_RIGHT)
    apm = AudioProcessingModule(high_pass_filter=True, array=True)
    out = processed(apm, mic)[0]
    lost_db = []
    for start_s in (3.5, 4.0, 4.5, 5.0):
        part = slice(round(start_s * RATE_HZ), round((start_s + 0.5) * RATE_HZ))
        lost_db.append(max(db(power(x[part])) for x in near) - db(power(out[part])))
    print("talker attenuated by", np.round(lost_db, 1), "dB before, in the first half second, then")
    assert lost_db[1] < 6.0 and max(lost_db[2:]) < 2.0


def test_the_echo_is_cancelled_before_the_beam(rng: np.random.Generator) -> None:
    """Far end alone; then the talker, too."""
    seconds, count = 8.0, 8 * RATE_HZ
    far = voice(rng, RATE_HZ, seconds, pitch_hz=120.0)
    echo = at_microphones(rng, far, FROM_RIGHT)
    near = at_microphones(rng, voice(rng, RATE_HZ, seconds) * (np.arange(count) >= 5 * RATE_HZ), FROM_LEFT)
    apm = AudioProcessingModule(**CLEAN, echo_cancellation=True, array=True)
    out = processed(apm, near + echo + 10 ** (-70 / 20) * rng.standard_normal(near.shape), far)[0]
    alone, both = slice(3 * RATE_HZ, 5 * RATE_HZ), slice(6 * RATE_HZ, count)
    reduced_db = db(power(echo[0, alone])) - db(power(out[alone]))
    ratio_db = max(si_sdr_db(out[both], x[both]) for x in near)
    print(f"echo reduced by {reduced_db:.1f} dB, talker over the rest {ratio_db:.1f} dB")
    assert reduced_db > 30.0 and ratio_db > 8.0 and apm.stats().converged


def test_the_beam_is_switched_without_a_click_and_one_channel_is_left_as_it_is(
    rng: np.random.Generator,
) -> None:
    """A tone as loud at each microphone, in two of opposite phase; the beam has that of the first."""
    time_s = np.arange(4 * RATE_HZ) / RATE_HZ
    tone = 0.3 * np.sin(2 * np.pi * 300.0 * time_s)
    mic = to_int16(np.stack([tone, -tone, tone, -tone], axis=1))
    apm = AudioProcessingModule()
    outs = []
    for second in range(4):
        apm.configure(array=second % 2 == 1)
        outs.append(process(apm, RATE_HZ, mic[second * RATE_HZ : (second + 1) * RATE_HZ]))
    out = np.concatenate(outs)[RATE_HZ // 10 :] / 32768.0
    step, own = np.abs(np.diff(out[:, 0])).max(), 0.3 * 2 * np.pi * 300.0 / RATE_HZ
    print(f"largest step of the first channel {step:.4f}, the tone's own {own:.4f}")
    assert step < 1.05 * own
    single = [process(AudioProcessingModule(**CLEAN, array=on), RATE_HZ, mic[:, 0]) for on in (False, True)]
    assert np.array_equal(*single)


def test_a_file_of_four_microphones_becomes_a_mono_beam(rng: np.random.Generator, tmp_path: Path) -> None:
    near = at_microphones(rng, voice(rng, RATE_HZ, 4.0), FROM_LEFT)
    mic = near + at_microphones(rng, fan(rng, 4.0, -36.0), FROM_RIGHT)
    soundfile.write(tmp_path / "mic.wav", mic.T, RATE_HZ, subtype="PCM_16")
    given = Settings(
        sample_rate_hz=RATE_HZ,
        microphone=Endpoint(file=tmp_path / "mic.wav", channels=4),
        output=Endpoint(file=tmp_path / "out.wav"),
        features=Features(auto_gain_control=False, array=True),
    )
    assert service.run(given) == 0
    out, _ = soundfile.read(tmp_path / "out.wav", dtype="int16")
    read = soundfile.read(tmp_path / "mic.wav", dtype="int16")[0]
    apm = AudioProcessingModule(**CLEAN, echo_cancellation=True, array=True)
    assert np.array_equal(out, process(apm, RATE_HZ, read)[:, 0])


def test_a_daemon_with_four_microphones_takes_echo_and_noise(
    rng: np.random.Generator, room_card: RoomCard, tmp_path: Path
) -> None:
    """Far end for 4 s, then the talker at the left; a fan at the right all the time. Compared with the mean
    of the microphones, the output without a beam.
    """
    seconds, count = 8.0, 8 * RATE_HZ
    far = voice(rng, RATE_HZ, seconds, pitch_hz=120.0) * (np.arange(count) < 4 * RATE_HZ)
    talker = at_microphones(rng, voice(rng, RATE_HZ, seconds) * (np.arange(count) >= 4 * RATE_HZ), FROM_LEFT)
    near = talker + at_microphones(rng, fan(rng, seconds, -31.0), FROM_RIGHT)
    soundfile.write(tmp_path / "near.wav", near.T, RATE_HZ)
    soundfile.write(tmp_path / "far.wav", far, RATE_HZ)

    def run(beam: bool) -> tuple[float, float]:
        """Return by how much the echo is reduced, and the SI-SDR of the talker, in dB."""
        card = room_card(microphones=4, near=tmp_path / "near.wav", delay_ms=30)
        frames: list[bytes] = []
        given = Settings(
            sample_rate_hz=RATE_HZ,
            microphone=Endpoint(card, channels=4),
            speaker=Endpoint(card),
            far_end=Endpoint(file=tmp_path / "far.wav"),
            output=Endpoint(file=tmp_path / "out.wav"),
            features=Features(auto_gain_control=False, array=beam),
            socket=None,
        )
        assert (
            service.run(given, seconds=seconds, tap=lambda _far, mic, _out, _times: frames.append(mic)) == 0
        )
        mic = from_int16(np.frombuffer(b"".join(frames), "<i2").reshape(-1, 4)).T
        assert len({x.tobytes() for x in mic}) == 4, "each microphone has a sound of its own"
        out = soundfile.read(tmp_path / "out.wav")[0][round(0.006 * RATE_HZ) :]
        far_alone, talk = slice(2 * RATE_HZ, 4 * RATE_HZ), slice(5 * RATE_HZ, count - RATE_HZ)
        reduced_db = db(power(mic[0, far_alone])) - db(power(out[far_alone]))
        return reduced_db, max(si_sdr_db(out[talk], x[talk]) for x in talker)

    mean_reduced_db, mean_db = run(beam=False)
    beam_reduced_db, beam_db = run(beam=True)
    print(
        f"echo and fan reduced by {mean_reduced_db:.1f} dB without, {beam_reduced_db:.1f} dB with the beam;"
    )
    print(f"talker over the rest {mean_db:.1f} and {beam_db:.1f} dB")
    assert beam_reduced_db > 10.0 and beam_db > mean_db + 2.0
