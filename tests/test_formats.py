"""Cards of all kinds in the loop: formats, channels, rates, a hardware reference; and the path without
conversion.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from daemon import RATE_HZ, RoomCard, impulse_response, level_db, talk, write

from apmpi.cards import formats
from apmpi.cards.latency import FrameTimes
from apmpi.service import run as service
from apmpi.settings import Endpoint, Features, Settings

NOTHING = Features(False, False, False, False)
CANCELLER = Features(noise_suppression=False, auto_gain_control=False)


class Heard:
    """Blocks that passed through the loop."""

    def __init__(self) -> None:
        self.far, self.microphone, self.output = bytearray(), bytearray(), bytearray()
        self.times: list[FrameTimes] = []

    def tap(self, far: bytes, microphone: bytes, output: bytes, times: FrameTimes) -> None:
        self.far += far
        self.microphone += microphone
        self.output += output
        self.times.append(times)

    def reduction_db(self, seconds: float) -> float:
        """Reduction of the echo in dB, in the last `seconds`."""
        before, after = (np.frombuffer(sound, "<i2") / 32768 for sound in (self.microphone, self.output))
        count = int(seconds * RATE_HZ)
        return level_db(before[-count:]) - level_db(after[-count:])


@pytest.mark.parametrize("sample_format", list(formats.FORMATS))
def test_16_bits_survive_each_format(sample_format: str, rng: np.random.Generator) -> None:
    samples = rng.integers(-32768, 32768, 1000).astype("<i2")
    samples[:2] = -32768, 32767
    through = formats.to_int16(formats.from_int16(samples.tobytes(), sample_format), sample_format)
    assert np.array_equal(np.frombuffer(through, "<i2"), samples)


@pytest.mark.parametrize(
    ("sample_format", "samples", "expected"),
    [
        (
            "FLOAT_LE",
            np.array([2.0, -2.0, np.nan, 0.4 / 32768, 0.6 / 32768], "<f4"),
            [32767, -32768, 0, 0, 1],
        ),
        ("S32_LE", np.array([2**31 - 1, -(2**31), 0x7FFF, 0x8000, -1], "<i4"), [32767, -32768, 0, 1, 0]),
        (
            "S24_3LE",
            np.frombuffer(b"\xff\xff\x7f\x00\x00\x80\x7f\x00\x00\x80\x00\x00\xff\xff\xff", "u1"),
            [32767, -32768, 0, 1, 0],
        ),
    ],
)
def test_more_bits_are_rounded(sample_format: str, samples: np.ndarray, expected: list[int]) -> None:
    got = np.frombuffer(formats.to_int16(samples.tobytes(), sample_format), "<i2")
    assert got.tolist() == expected


@pytest.mark.parametrize("sample_format", ["S24_3LE", "S32_LE", "FLOAT_LE"])
def test_a_card_without_16_bits(
    sample_format: str, room_card: RoomCard, rng: np.random.Generator, tmp_path: Path
) -> None:
    """Its echo is cancelled as on other cards, and it plays at the same level."""
    write(tmp_path / "far.wav", far := talk(rng, 5.0))
    write(tmp_path / "room.wav", impulse_response(rng))
    played = tmp_path / "played.wav"
    device = room_card(
        format=sample_format, impulse_response=tmp_path / "room.wav", delay_ms=30, record=played
    )
    settings = Settings(
        microphone=Endpoint(device), speaker=Endpoint(device, channels=2),
        far_end=Endpoint(file=tmp_path / "far.wav"), features=CANCELLER, report_interval_s=60.0,
    )  # fmt: skip
    heard = Heard()
    assert service.run(settings, seconds=4, tap=heard.tap) == 0
    reduction_db = heard.reduction_db(1.0)
    # The record begins when the card is opened, on a slow machine long before the sound.
    sound, start = soundfile.read(played)[0], np.flatnonzero(np.abs(far) > 1e-3)[0]
    start_played = np.flatnonzero(np.abs(sound) > 1e-3)[0]
    louder_db = level_db(sound[start_played:][: 2 * RATE_HZ]) - level_db(far[start:][: 2 * RATE_HZ])
    print(f"echo reduced by {reduction_db:.1f} dB, played {louder_db:+.2f} dB louder than given")
    assert reduction_db > 20
    assert abs(louder_db) < 1


def test_a_hardware_reference(room_card: RoomCard, rng: np.random.Generator, tmp_path: Path) -> None:
    """Another program plays; the third channel of the microphone's card is its signal. The first two are
    microphones.
    """
    soundfile.write(tmp_path / "other.wav", talk(rng, 6.0), RATE_HZ, subtype="PCM_16")
    write(tmp_path / "room.wav", impulse_response(rng))
    device = room_card(reference=1, impulse_response=tmp_path / "room.wav", delay_ms=30, noise_dbfs=-75)
    settings = Settings(
        microphone=Endpoint(device, channels=3, use=(2,)), far_end=Endpoint(microphone_channels=(3,)),
        output=Endpoint(file=tmp_path / "clean.wav"), features=CANCELLER, report_interval_s=60.0,
    )  # fmt: skip
    heard = Heard()
    with subprocess.Popen(["aplay", "-q", "-D", device, tmp_path / "other.wav"]) as player:
        assert service.run(settings, seconds=5, tap=heard.tap) == 0
        player.terminate()
    reduction_db = heard.reduction_db(1.0)
    print(
        f"echo reduced by {reduction_db:.1f} dB; reference {level_db(np.frombuffer(heard.far, '<i2')):.0f} dB"
    )
    assert soundfile.info(tmp_path / "clean.wav").channels == 1
    assert reduction_db > 20


def test_channels_of_a_recording_are_chosen(rng: np.random.Generator, tmp_path: Path) -> None:
    recording = rng.integers(-9000, 9000, (RATE_HZ, 4)).astype(np.int16)
    soundfile.write(tmp_path / "mic.wav", recording, RATE_HZ, subtype="PCM_16")
    settings = Settings(
        microphone=Endpoint(file=tmp_path / "mic.wav", channels=4, use=(4, 1)),
        far_end=Endpoint(microphone_channels=(2,)), features=NOTHING,
    )  # fmt: skip
    heard = Heard()
    assert service.run(settings, tap=heard.tap) == 0
    assert np.array_equal(np.frombuffer(heard.microphone, "<i2").reshape(-1, 2), recording[:, [3, 0]])
    assert np.array_equal(np.frombuffer(heard.far, "<i2"), recording[:, 1])


def test_some_channels_of_a_card_with_16(
    room_card: RoomCard, rng: np.random.Generator, tmp_path: Path
) -> None:
    near = rng.integers(-9000, 9000, 6 * RATE_HZ).astype(np.int16)
    soundfile.write(tmp_path / "near.wav", near, RATE_HZ, subtype="PCM_16")
    room = room_card(near=tmp_path / "near.wav")
    # ALSA's plug makes 16 channels of the card's, of which the last ones carry nothing.
    settings = Settings(
        microphone=Endpoint(f"plug:{room}", channels=16, use=(1, 16)),
        far_end=Endpoint(microphone_channels=(15,)), features=NOTHING, report_interval_s=60.0,
    )  # fmt: skip
    heard = Heard()
    assert service.run(settings, seconds=2, tap=heard.tap) == 0
    first, last = np.frombuffer(heard.microphone, "<i2").reshape(-1, 2).T / 32768
    print(f"channel 1 {level_db(first):.1f} dB, channel 16 {level_db(last):.1f} dB")
    assert level_db(first[RATE_HZ // 2 :]) > -25
    assert level_db(last) < -80
    assert not np.frombuffer(heard.far, "<i2").any()


def test_cards_with_other_rates(room_card: RoomCard, rng: np.random.Generator, tmp_path: Path) -> None:
    """A far end at 16 kHz, played and cancelled at 48 kHz, and an output at 8 kHz."""
    host = 0.2 * np.sin(2 * np.pi * 1000 * np.arange(7 * 16000) / 16000)
    soundfile.write(tmp_path / "host.wav", host, 16000, subtype="FLOAT")
    write(tmp_path / "room.wav", np.full(1, 0.5))
    left = tmp_path / "left.wav"
    room = room_card(impulse_response=tmp_path / "room.wav", delay_ms=30)
    settings = Settings(
        microphone=Endpoint(room), speaker=Endpoint(room),
        far_end=Endpoint(room_card(near=tmp_path / "host.wav"), sample_rate_hz=16000),
        output=Endpoint(room_card(record=left), sample_rate_hz=8000),
        features=NOTHING, report_interval_s=60.0,
    )  # fmt: skip
    heard = Heard()
    assert service.run(settings, seconds=5, tap=heard.tap) == 0
    sound, rate_hz = soundfile.read(left)
    part = sound[2 * rate_hz : 4 * rate_hz]
    spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)))) / len(part) * 4
    tone = int(np.argmax(spectrum))
    others = np.delete(spectrum, range(tone - 8, tone + 9))
    print(f"{rate_hz} Hz: {tone / 2} Hz with {spectrum[tone]:.3f}, all else below {others.max():.5f}")
    assert rate_hz == 8000
    assert tone / 2 == 1000.0
    assert spectrum[tone] == pytest.approx(0.1, rel=0.02)  # half of 0.2 comes back from the room
    assert others.max() < 0.001
    assert np.median([times.total_ms for times in heard.times]) < 25


@pytest.mark.parametrize(("low_latency", "most_ms"), [(False, 20.5), (True, 14.5)], ids=["default", "low"])
@pytest.mark.parametrize("output", ["one card", "two cards", "Loopback"])
def test_round_trip(low_latency: bool, most_ms: float, output: str, room_card: RoomCard) -> None:
    """Through snd-aloop a tick of the kernel is added, by which its positions may be old."""
    device = room_card()
    most_ms += 4.0 if output == "Loopback" else 0.0
    others = {"one card": lambda: device, "two cards": room_card, "Loopback": lambda: room_card("Loopback")}
    settings = Settings(
        microphone=Endpoint(device), output=Endpoint(others[output]()),
        low_latency=low_latency, report_interval_s=60.0,
    )  # fmt: skip
    heard = Heard()
    assert service.run(settings, seconds=3, tap=heard.tap) == 0
    totals_ms = [times.total_ms for times in heard.times[50:]]
    wake_ms = [times.capture_wait_ms - 10 for times in heard.times[50:]]
    print(
        f"median {np.median(totals_ms):.2f} ms, of which {heard.times[-1].algorithmic_ms:g} ms algorithmic; "
        f"wake-up {np.median(wake_ms):.3f} ms late, 99 % {np.percentile(wake_ms, 99):.3f} ms; "
        f"{heard.times[-1].xruns} xruns"
    )
    assert most_ms - 1.0 < np.median(totals_ms) < most_ms
    assert heard.times[-1].algorithmic_ms <= 10
