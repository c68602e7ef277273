"""The doctor's answers beside the truth: of rooms that are known, and of machines that are made up."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from daemon import APMPI
from scipy.signal import fftconvolve

from apmpi.api.apm import Stats
from apmpi.cards.latency import LatencyLog
from apmpi.settings import Endpoint, Settings
from apmpi.tools import acoustics, doctor, listening, machine_checks, sound_checks
from apmpi.tools.finding import FINE, NOTE, WRONG, Finding

RoomCard = Callable[..., str]


def room(rng: np.random.Generator, rate_hz: int, decay_s: float, gain_db: float) -> np.ndarray:
    """A first sound after 1.5 ms, then a decay by 60 dB in `decay_s`; the energy of both is `gain_db`."""
    t = np.arange(round(min(decay_s, 0.99) * rate_hz)) / rate_hz
    tail = rng.standard_normal(len(t)) * 10 ** (-3 * t / decay_s) * (t > 0.0015)
    response = tail / np.sqrt(np.sum(tail**2)) / np.sqrt(2)
    response[round(0.0015 * rate_hz)] = 1.0
    return np.asarray(response / np.sqrt(np.sum(response**2)) * 10 ** (gain_db / 20))


def distortion(peak: float, drive: float) -> float:
    """Harmonics 2 to 5 over the fundamental of a sine through tanh(drive x) / drive."""
    spectrum = np.abs(np.fft.rfft(np.tanh(drive * peak * np.sin(2 * np.pi * np.arange(4096) * 8 / 4096))))
    return float(np.sqrt(sum(spectrum[8 * harmonic] ** 2 for harmonic in (2, 3, 4, 5))) / spectrum[8])


# ---- the measurement alone


@pytest.mark.parametrize("rate_hz", [8000, 16000, 48000])
@pytest.mark.parametrize(
    ("decay_s", "delay_s", "gain_db", "drive_db", "noise_dbfs"),
    [
        (0.3, 0.058, -3.0, 0.0, -60.0),
        (0.2, 0.03, -10.0, 12.0, -70.0),
        (0.6, 0.5, -20.0, 6.0, -75.0),
        (1.0, 0.1, 0.0, 0.0, -80.0),
        (0.3, 0.05, -30.0, 0.0, -45.0),
    ],
)
def test_the_sweep_tells_the_truth(
    rng: np.random.Generator,
    rate_hz: int,
    decay_s: float,
    delay_s: float,
    gain_db: float,
    drive_db: float,
    noise_dbfs: float,
) -> None:
    peak, drive = 0.25, 10 ** (drive_db / 20)
    played = np.concatenate([acoustics.sweep(rate_hz, peak), np.zeros(round(1.5 * rate_hz))])
    loud = np.tanh(drive * played) / drive if drive_db else played
    size = 4 * len(played)
    response = room(rng, rate_hz, decay_s, gain_db)
    echo = np.fft.irfft(np.fft.rfft(loud, size) * np.fft.rfft(response, size), size)
    heard = np.concatenate([np.zeros(round(delay_s * rate_hz)), echo])[: len(played)]
    heard += 10 ** (noise_dbfs / 20) * rng.standard_normal(len(played))
    path = acoustics.measure(played, heard, rate_hz)
    truth = distortion(peak, drive) if drive_db else 0.0
    print(f"{path}; truth: {truth:.4f} distortion")
    assert path.heard and not path.wire and not path.inverted
    assert path.delay_s == pytest.approx(delay_s + 0.0015, abs=1.5 / rate_hz)
    # What a soft clip takes from the fundamental: J1-like, computed with the harmonics' own sine.
    sine = np.sin(2 * np.pi * np.arange(4096) / 4096)
    lost_db = (
        20 * np.log10(2 * np.mean(np.tanh(drive * peak * sine) * sine) / drive / peak) if drive_db else 0.0
    )
    # A room of one draw of noise has its energy evenly over the band to within a decibel.
    # Where it is noisy, the end of the decay is lost, too.
    lost_in_noise = noise_dbfs - gain_db > -30
    assert path.gain_db == pytest.approx(gain_db + lost_db, abs=2.0 if lost_in_noise else 1.0)
    if noise_dbfs - gain_db <= -45:  # 25 dB of decay, and 10 more to the noise
        assert path.decay_s == pytest.approx(decay_s, rel=0.2)
    if path.distortion is not None:
        # The room colours the harmonics otherwise than the fundamental.
        assert path.distortion == pytest.approx(truth, rel=0.35, abs=0.005)
    if drive_db == 12:
        assert path.distortion is not None


def test_what_is_not_heard_is_not_measured(rng: np.random.Generator) -> None:
    played = np.concatenate([acoustics.sweep(16000, 0.25), np.zeros(24000)])
    for heard in (np.zeros_like(played), 1e-3 * rng.standard_normal(len(played))):
        assert not acoustics.measure(played, heard, 16000).heard


@pytest.mark.parametrize("sign", [1, -1])
def test_channels_of_opposite_polarity_are_found(rng: np.random.Generator, sign: int) -> None:
    """Two microphones 10 cm apart, in one room and its noise."""
    rate_hz = 16000
    settings = Settings(sample_rate_hz=rate_hz, microphone=Endpoint("card", channels=2))
    played = listening.signal(rate_hz, 1)
    responses = [np.concatenate([np.zeros(late), room(rng, rate_hz, 0.3, -6)]) for late in (0, 5)]
    echoes = [np.convolve(played[:, 0], response)[: len(played)] for response in responses]
    heard = np.stack([echoes[0], sign * echoes[1]], axis=1)
    found = findings(settings, played, heard + 10 ** (-65 / 20) * rng.standard_normal(heard.shape))
    text = "the same in all channels" if sign == 1 else "channels 1 and 2 are of opposite polarity"
    assert (found["polarity"].verdict, found["polarity"].text) == (FINE if sign == 1 else NOTE, text)


def findings(settings: Settings, played: np.ndarray, heard: np.ndarray) -> dict[str, Finding]:
    """Findings by name, of what microphones received of what loudspeakers played."""
    log = LatencyLog(10, 6.0)
    log.add(10.0, 1.0, 5.0)
    latency = log.summary(0)
    assert latency is not None
    channels = tuple(range(1, heard.shape[1] + 1))
    hearing = listening.Hearing(
        settings.sample_rate_hz, channels, played, heard, latency, {}, {}, Stats(erle_db=30.0)
    )
    return {finding.name: finding for finding in sound_checks.sound_findings(settings, hearing)}


@pytest.mark.parametrize(("right", "late"), [(1.0, 30), (-1.0, 30), (-1.0, 0), (0.0, 0)])
def test_left_and_right_are_told_apart(rng: np.random.Generator, right: float, late: int) -> None:
    """The right loudspeaker is 2 ms farther, is wired the wrong way, even at the same distance, or is not
    connected."""
    rate_hz = 16000
    settings = Settings(sample_rate_hz=rate_hz, microphone=Endpoint("card"))
    played = listening.signal(rate_hz, 2)
    one = room(rng, rate_hz, 0.3, -6)
    responses = [one, right * np.pad(room(rng, rate_hz, 0.3, -6) if late else one, (late, 0))]
    heard = sum(
        fftconvolve(x, response)[: len(played)] for x, response in zip(played.T, responses, strict=True)
    )
    found = findings(settings, played, (heard + 10 ** (-65 / 20) * rng.standard_normal(len(heard)))[:, None])
    assert found["left speaker"].verdict == FINE
    assert found["right speaker"].verdict == (FINE if right else WRONG)
    assert ("speakers" in found) == (right < 0)
    if right:
        left_ms, right_ms = (float(found[f"{side} speaker"].text.split()[0]) for side in ("left", "right"))
        assert right_ms - left_ms == pytest.approx(1000 * late / rate_hz, abs=0.2)


# ---- the whole, on the room card


@dataclass(frozen=True)
class Room:
    """Options of a room card, what is true of it, and what is wrong with it."""

    options: dict[str, float]
    decay_s: float = 0.2
    gain_db: float = -6.0
    distortion: float = 0.0
    wrong: frozenset[str] = frozenset()
    channels: int = 1


# What is played leaves 14 ms after its frame came in (README: Latency).
PLAYOUT_MS = 14.0
ROOMS = {
    "plain": Room({"delay_ms": 40, "noise_dbfs": -65}),
    "wired": Room({"delay_ms": 20, "noise_dbfs": -65, "reference": 1}, decay_s=0.3, gain_db=-10, channels=2),
    "faulty": Room(
        {"delay_ms": 1000, "noise_dbfs": -45, "clip_db": 20},
        decay_s=0.2,
        gain_db=0,
        distortion=distortion(10 ** (listening.PEAK_DBFS / 20), 10),
        wrong=frozenset({"microphone noise", "microphone delay", "loudspeaker"}),
    ),
    "loud": Room(
        {"delay_ms": 10, "noise_dbfs": -65},
        decay_s=0.95,
        gain_db=18,
        wrong=frozenset({"microphone level", "microphone echo", "room"}),
    ),
    "silent": Room({"noise_dbfs": -70}, gain_db=-200, wrong=frozenset({"microphone echo"})),
}
# Of a busy machine rather than of the room; and with what is wrong the canceller has a hard time.
MACHINE = {"last day", "xruns", "processor", "clock source", "governor", "power", "echo cancellation"}


def test_rooms_and_what_the_doctor_says_of_them(
    tmp_path: Path, rng: np.random.Generator, room_card: RoomCard
) -> None:
    """All at once: each takes its nine seconds."""
    rate_hz = 16000
    running = {}
    for name, truth in ROOMS.items():
        response = room(rng, rate_hz, truth.decay_s, truth.gain_db)
        soundfile.write(tmp_path / f"{name}.wav", response, rate_hz, subtype="FLOAT")
        card = room_card(name, impulse_response=tmp_path / f"{name}.wav", **truth.options)
        path = tmp_path / f"{name}.yaml"
        path.write_text(
            f"sample_rate_hz: {rate_hz}\nmicrophone: {{device: {card}, channels: {truth.channels}}}\n"
            f"far_end: {{file: {name}.wav}}\nspeaker: {{device: {card}}}\n"
        )
        running[name] = subprocess.Popen(
            [APMPI, "doctor", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    for name, process in running.items():
        said, _ = process.communicate(timeout=60)
        print(f"---- {name}: {ROOMS[name]}\n{said}")
        check(name, ROOMS[name], said, process.returncode)


def check(name: str, truth: Room, said: str, status: int) -> None:
    found = {
        line[7 : 7 + doctor.NAME_WIDTH].strip(): (line[:6].strip(), line[8 + doctor.NAME_WIDTH :])
        for line in said.splitlines()
        if line.startswith((FINE, NOTE, WRONG))
    }
    wrong = {what for what, (verdict, _) in found.items() if verdict == WRONG}
    microphone = "microphone" if truth.channels == 1 else "channel 1"
    assert {what.replace(microphone, "microphone") for what in wrong} - MACHINE == truth.wrong, name
    assert status == bool(wrong)

    def number(what: str, pattern: str) -> float:
        match = re.search(pattern, found[what][1])
        assert match, f"{what}: {found[what][1]}"
        return float(match[1])

    noise_dbfs = number(f"{microphone} noise", r"noise floor (-[\d.]+) dBFS")
    assert noise_dbfs == pytest.approx(truth.options["noise_dbfs"], abs=0.5)
    if truth.gain_db < -100:
        assert "not heard" in found[f"{microphone} echo"][1]
        return
    delay_ms = number(f"{microphone} delay", r"([\d.]+) ms behind")
    assert delay_ms == pytest.approx(PLAYOUT_MS + truth.options["delay_ms"] + 1.5, abs=0.3)
    loss_db = number(f"{microphone} echo", r"echo return loss (-?[\d.]+) dB")
    if not truth.wrong:  # where nothing clips
        assert loss_db == pytest.approx(-truth.gain_db, abs=1.0)
        assert number("room", r"in ([\d.]+) s") == pytest.approx(truth.decay_s, rel=0.2)
        assert number("loudspeaker", r"distorts by ([\d.]+)%") < 1
        assert number("echo cancellation", r"takes (\d+) dB") >= sound_checks.ERLE_MIN_DB
        assert f"stream_delay_ms: {delay_ms:.0f}" in said or truth.channels > 1
    if truth.distortion:
        measured = number("loudspeaker", r"distorts by ([\d.]+)%") / 100
        assert measured == pytest.approx(truth.distortion, rel=0.35)
    if "reference" in truth.options:
        assert found["wired reference"] == (NOTE, "channel 2 carries what is played")
        assert "far_end: {microphone_channels: [2]}" in said and "channels: 2, use: [1]}" in said


def test_a_card_with_more_channels_than_are_processed(
    tmp_path: Path, rng: np.random.Generator, room_card: RoomCard
) -> None:
    """Those that are used are measured, and named by their numbers on the card."""
    soundfile.write(tmp_path / "room.wav", room(rng, 16000, 0.3, -10), 16000, subtype="FLOAT")
    card = room_card(impulse_response=tmp_path / "room.wav", delay_ms=20, noise_dbfs=-65)
    (tmp_path / "apmpi.yaml").write_text(
        # ALSA's plug makes 16 channels of the card's, of which the last ones carry nothing.
        f'sample_rate_hz: 16000\nmicrophone: {{device: "plug:{card}", channels: 16, use: [1, 16]}}\n'
        f"far_end: {{file: far.wav}}\nspeaker: {{device: {card}}}\n"
    )
    soundfile.write(tmp_path / "far.wav", np.zeros(16000), 16000)
    done = subprocess.run(
        [APMPI, "doctor", "apmpi.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    print(done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert re.search("channel 1 echo +echo return loss", done.stdout)
    assert re.search("^WRONG +channel 16 +gives nothing but zeros", done.stdout, re.MULTILINE)
    assert "channel 8" not in done.stdout  # those that are used, and the first of the rest
    assert "channels: 16, use: [1, " in done.stdout


def test_a_loudspeaker_that_is_not_connected(
    tmp_path: Path, rng: np.random.Generator, room_card: RoomCard
) -> None:
    """ALSA's route plugin leaves the right channel out."""
    soundfile.write(tmp_path / "room.wav", room(rng, 16000, 0.3, -10), 16000, subtype="FLOAT")
    card = room_card(impulse_response=tmp_path / "room.wav", delay_ms=20, noise_dbfs=-65)
    with (tmp_path / "room.conf").open("a") as conf:
        conf.write(f"pcm.half {{ type route slave {{ pcm {card} channels 2 }} ttable.0.0 1 ttable.1.1 0 }}\n")
    (tmp_path / "apmpi.yaml").write_text(
        f'sample_rate_hz: 16000\nmicrophone: {{device: "{card}"}}\n'
        'far_end: {file: far.wav, channels: 2}\nspeaker: {device: "plug:half", channels: 2}\n'
    )
    soundfile.write(tmp_path / "far.wav", np.zeros((16000, 2)), 16000)
    done = subprocess.run(
        [APMPI, "doctor", "apmpi.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    print(done.stdout, done.stderr)
    assert re.search(r"^fine +left speaker +[\d.]+ ms behind what is played", done.stdout, re.MULTILINE)
    assert re.search(r"^WRONG +right speaker +is not heard", done.stdout, re.MULTILINE)


def test_an_inverted_loudspeaker_and_a_dead_microphone(tmp_path: Path, room_card: RoomCard) -> None:
    """Three microphones on a card of four channels; the third one is nearer to the inverted loudspeaker."""
    card = room_card(
        loudspeakers=2,
        microphones=3,
        delay_ms=20,
        noise_dbfs=-65,
        inverted="loudspeaker2",
        dead="microphone2",
    )
    (tmp_path / "apmpi.yaml").write_text(
        f"sample_rate_hz: 16000\nmicrophone: {{device: {card}, channels: 4}}\n"
        f"far_end: {{file: far.wav, channels: 2}}\nspeaker: {{device: {card}, channels: 2}}\n"
    )
    soundfile.write(tmp_path / "far.wav", np.zeros((16000, 2)), 16000)
    done = subprocess.run(
        [APMPI, "doctor", "apmpi.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    print(done.stdout, done.stderr)
    for line in (
        r"fine +left speaker +[\d.]+ ms behind what is played",
        r"fine +right speaker +[\d.]+ ms behind what is played",
        r"note +speakers +left and right are of opposite polarity",
        r"WRONG +channel 2 echo +.*is not heard here, though channel 1 records it",
        r" +-> connect it, or leave it out: microphone.use: \[1, 3\]",
        r"WRONG +channel 4 +gives nothing but zeros",
        r" +-> unmute it \(alsamixer\), or leave it out: microphone.use: \[1, 3\]",
        r"fine +polarity +the same in all channels",  # of the microphones
        r" +microphone: {device: \".*\", channels: 4, use: \[1, 3\]}",
    ):
        assert re.search(f"^{line}", done.stdout, re.MULTILINE), line
    assert done.returncode == 1 and "upside down" not in done.stdout


def test_a_channel_that_is_not_used_is_no_fault(rng: np.random.Generator) -> None:
    settings = Settings(sample_rate_hz=16000, microphone=Endpoint("card", channels=3, use=(1, 2)))
    played = listening.signal(16000, 1)
    heard = np.zeros((len(played), 3))
    heard[:, 0] = fftconvolve(played[:, 0], room(rng, 16000, 0.3, -6))[: len(played)]
    heard[:, 0] += 10 ** (-65 / 20) * rng.standard_normal(len(played))
    found = findings(settings, played, heard)
    assert (found["channel 2"].verdict, found["channel 3"].verdict) == (WRONG, NOTE)
    assert found["channel 2"].todo == "unmute it (alsamixer), or leave it out: microphone.use: [1]"


def test_what_keeps_it_from_listening(tmp_path: Path, room_card: RoomCard) -> None:
    card = room_card()
    (tmp_path / "apmpi.yaml").write_text(
        f"microphone: {{device: {card}}}\nspeaker: {{device: hw:CARD=Gone}}\n"
        "far_end: {device: hw:CARD=Loopback}\n"
    )
    done = subprocess.run(
        [APMPI, "doctor", "apmpi.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    print(done.stdout)
    assert done.returncode == 1 and done.stderr == ""
    assert re.search(r"^fine +microphone +device room0 opens", done.stdout, re.MULTILINE)
    assert re.search(
        r"^WRONG +speaker +speaker.device: 'hw:CARD=Gone' does not exist", done.stdout, re.MULTILINE
    )
    assert "-> apmpi check lists what there is" in done.stdout and "plays" not in done.stdout
    done = subprocess.run(
        [APMPI, "doctor", "no.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2 and done.stderr.startswith("apmpi: no.yaml: cannot be read")


# ---- machines

CPU = "sys/devices/system/cpu/cpu0/cpufreq"
CLOCK = "sys/devices/system/clocksource/clocksource0/current_clocksource"
THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"


@pytest.mark.parametrize(
    ("files", "name", "verdict", "text"),
    [
        ({CLOCK: "arch_sys_counter\n"}, "clock source", FINE, "arch_sys_counter"),
        ({CLOCK: "hpet\n"}, "clock source", WRONG, "hpet is slow to read"),
        ({f"{CPU}/scaling_governor": "ondemand\n"}, "governor", FINE, "ondemand"),
        ({f"{CPU}/scaling_governor": "powersave\n"}, "governor", WRONG, "lowest speed"),
        (
            {f"{CPU}/scaling_governor": "powersave\n", f"{CPU}/scaling_driver": "intel_pstate\n"},
            "governor", FINE, "powersave",
        ),
        ({THROTTLED: "0\n"}, "power", FINE, "no undervoltage"),
        ({THROTTLED: "50005\n"}, "power", WRONG, "too little voltage, throttled now"),
        ({THROTTLED: "0x80000\n"}, "power", WRONG, "too hot since the start"),
        (
            {"sys/class/hwmon/hwmon1/name": "rpi_volt\n", "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n"},
            "power", WRONG, "too little voltage",
        ),
        (
            {"sys/class/hwmon/hwmon1/name": "rpi_volt\n", "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "0\n"},
            "power", FINE, "no undervoltage",
        ),
        ({"dev/snd/pcmC0D0p": "", "dev/snd/pcmC0D0c": ""}, "permission", FINE, "2 PCM devices"),
        ({}, "kernel sound", NOTE, "no card in /dev/snd"),
    ],
)  # fmt: skip
def test_machines(tmp_path: Path, files: dict[str, str], name: str, verdict: str, text: str) -> None:
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    found = {finding.name: finding for finding in machine_checks.machine_findings(tmp_path)}
    assert found[name].verdict == verdict
    assert text in found[name].text
    assert (found[name].todo == "") == (verdict != WRONG)
    assert found["arithmetic"].verdict == FINE
