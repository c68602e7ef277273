"""`apmpi demo`: a telephone call through the whole daemon, then figures, recordings and a picture.

    far end (espeak-ng) ──► loudspeaker ──► room: impulse response, delay ──┐
                                                                            ▼
    out.wav ◄── the daemon's real loop ◄── microphone ◄── near end (espeak-ng), noise

Without a device, loudspeaker and microphone are the room card, an ALSA sound card with a simulated room. With
a device they are real, and the user is the near end. The loop is that of `apmpi run` in both cases.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from apmpi.cards import alsa, pcm
from apmpi.cards.latency import FrameTimes
from apmpi.cards.replace import RECORDING_MODE, replace
from apmpi.cards.text_file import one_line
from apmpi.errors import CommandError
from apmpi.service import run as service
from apmpi.service import yaml_reader
from apmpi.settings import Settings
from apmpi.tools.picture import Samples, draw_spectrogram, level_dbfs
from apmpi.units import FRAMES_PER_S

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RATE_HZ = 48000
FRAME_SAMPLES = RATE_HZ // FRAMES_PER_S
SHORTEST_S = 6.0  # three parts of 2 s: shorter parts end before the canceller has converged

FAR_TEXT = """
Good morning, this is the far end of the line. I am calling from a quiet office, and you hear me through your
loudspeaker. Without echo cancellation I would hear every word of mine come back, a moment later.
The first train leaves at a quarter past seven, and the second one forty minutes after that. Please bring the
blue folder, the drawings of the bridge, and something warm to drink. The weather will turn in the afternoon.
"""
NEAR_TEXT = """
Hello, and here is the near end, close to the microphone. Yes, I can hear you well, go on talking, we may both
speak at once. I have found the blue folder, but the drawings must still be in the other room. Let me think:
a quarter past seven is early, so we had better take the second train. Then there is time for breakfast.
"""

# The simulated room: a speakerphone on a desk. The direct sound travels 0.5 m from loudspeaker to microphone
# at 343 m/s, the reverberation decays by 60 dB in RT60_S, and the echo is about as loud as the near-end
# speech.
RT60_S = 0.3
DIRECT_S = 0.5 / 343
DIRECT_TO_REVERBERANT_DB = 3.0
ECHO_PATH_DB = -3.0
BULK_DELAY_MS = 40
NOISE_DBFS = -60
PEAK = 0.35  # of full scale, for far-end and near-end speech


def main(folder: Path, seconds: float, device: str | None) -> int:
    """Run the demonstration for `seconds`, leave its files in `folder` and return the exit status.

    `device` is an ALSA device with microphone and loudspeaker; None selects the room card. Raises
    CommandError and ConfigError.
    """
    try:
        settings = prepare(folder, seconds, device)
        print(announcement(seconds, device), flush=True)
        recording = Recording()
        status = service.run(settings, config_path=folder / "apmpi.yaml", seconds=seconds, tap=recording.tap)
        if status == 0:
            summarise(recording, folder, seconds, device)
        return status
    except OSError as error:
        print(f"apmpi: {one_line(str(error.filename))}: {error.strerror}", file=sys.stderr)
    except soundfile.LibsndfileError as error:
        print(f"apmpi: {one_line(str(error))}", file=sys.stderr)
    return 2


# ---- before: the call, the room, the configuration


def prepare(folder: Path, seconds: float, device: str | None) -> Settings:
    """Write the far end's WAV, the configuration and, for the room card, its room into `folder`.

    Returns the settings. Raises CommandError if something is missing or `seconds` are too few.
    """
    if seconds < SHORTEST_S:
        raise CommandError(f"{seconds:g} seconds are too few, expected at least {SHORTEST_S:g}")
    if shutil.which("espeak-ng") is None:
        raise CommandError("espeak-ng, which speaks the call, is not installed: apt-get install espeak-ng")
    try:
        import matplotlib  # noqa: F401 - asked before the call, not after it
    except ImportError:
        raise CommandError(
            "matplotlib, which draws the picture, is not installed: pip install 'apmpi[demo]'"
        ) from None

    folder.mkdir(parents=True, exist_ok=True)
    third = round(seconds * RATE_HZ / 3)
    far, near = np.zeros(3 * third), np.zeros(3 * third)
    far[: 2 * third] = speech("en-us", FAR_TEXT, 2 * third)
    near[third:] = speech("en-gb+f3", NEAR_TEXT, 2 * third)
    write_wav(folder / "far.wav", far)
    if device is None:
        write_wav(folder / "near.wav", near)
        write_wav(folder / "room.wav", room_impulse_response(np.random.default_rng(1)))
        replace(folder / "room.conf", room_card(folder).encode())
        # alsa-lib reads its configuration when a device is opened, which comes later.
        os.environ["ALSA_CONFIG_PATH"] = f"/usr/share/alsa/alsa.conf:{folder.resolve() / 'room.conf'}"
    path = folder / "apmpi.yaml"
    replace(path, configuration(device or "room").encode())
    return yaml_reader.load(path)


def speech(voice: str, text: str, samples: int) -> Samples:
    """Return `samples` of `text` spoken by espeak-ng, repeated from its start where it ends."""
    spoken = subprocess.run(
        ["espeak-ng", "-v", voice, "-s", "165", "--stdout", text], stdout=subprocess.PIPE, check=True
    )
    sound, rate_hz = soundfile.read(io.BytesIO(spoken.stdout))
    # Exact resampling of a finite signal: the same spectrum, more of it empty.
    wanted = round(len(sound) * RATE_HZ / rate_hz)
    sound = np.fft.irfft(np.fft.rfft(sound), wanted) * (wanted / len(sound))
    return np.resize(sound * (PEAK / np.abs(sound).max()), samples)


def room_impulse_response(rng: np.random.Generator) -> Samples:
    """Impulse response from loudspeaker to microphone: a direct sound, then decaying Gaussian noise.

    The noise has the envelope 10^(-3 t / RT60_S). The energy of the whole response is ECHO_PATH_DB, the ratio
    of the direct sound's energy to that of the reverberation DIRECT_TO_REVERBERANT_DB.
    """
    t = np.arange(round(RT60_S * RATE_HZ)) / RATE_HZ
    tail = rng.standard_normal(len(t)) * 10 ** (-3 * t / RT60_S) * (t > DIRECT_S)
    response = tail / np.sqrt(np.sum(tail**2)) * 10 ** (-DIRECT_TO_REVERBERANT_DB / 20)
    response[round(DIRECT_S * RATE_HZ)] = 1.0
    return np.asarray(response / np.sqrt(np.sum(response**2)) * 10 ** (ECHO_PATH_DB / 20))


def room_card(folder: Path) -> str:
    """Return the ALSA configuration of the room card."""
    library = Path(__file__).parents[1] / "libasound_module_pcm_apmpi_room.so"
    return f"""\
# A sound card with a simulated room, for any ALSA program:
#   ALSA_CONFIG_PATH=/usr/share/alsa/alsa.conf:{folder.resolve()}/room.conf arecord -D room ...
pcm_type.apmpi_room {{ lib "{library}" }}
pcm.room {{
    type apmpi_room
    card "apmpi-demo-{os.getpid()}"
    impulse_response "{folder.resolve()}/room.wav"
    near "{folder.resolve()}/near.wav"
    delay_ms {BULK_DELAY_MS}
    noise_dbfs {NOISE_DBFS}
}}
"""


def configuration(device: str) -> str:
    return f"""\
# The demonstration's configuration; relative paths start at this file.
sample_rate_hz: {RATE_HZ}
microphone: {{device: "{device}"}}
speaker: {{device: "{device}"}}
far_end: {{file: far.wav}}
output: {{file: out.wav}}
report_interval_s: 1
"""


def announcement(seconds: float, device: str | None) -> str:
    a, b, c = (f"{seconds * part / 3:.0f}" for part in (1, 2, 3))
    if device is None:
        where = "a simulated sound card, in a simulated room"
        parts = ("the far end talks: all echo", "both talk", "the near end talks: no echo")
    else:
        where = device
        parts = ("the far end talks: please listen", "it goes on: please talk", "please go on talking")
    lines = [
        f"A call of {c} s on {where}:",
        f"  {0:>3} - {a:>2} s  {parts[0]}",
        f"  {a:>3} - {b:>2} s  {parts[1]}",
        f"  {b:>3} - {c:>2} s  {parts[2]}",
    ]
    cards = set(pcm.hardware(alsa.CAPTURE)) & set(pcm.hardware(alsa.PLAYBACK))
    if device is None and cards:
        lines.append(f"(A real sound card is here too: make run DEVICE=plug{min(cards)})")
    return "\n".join(lines)


def write_wav(path: Path, samples: Samples) -> None:
    content = io.BytesIO()
    soundfile.write(content, samples, RATE_HZ, subtype="PCM_16", format="WAV")
    replace(path, content.getvalue(), RECORDING_MODE)


# ---- during


@dataclass
class Recording:
    """Signals and latencies of each frame, collected in the audio thread."""

    far: list[bytes] = field(default_factory=list)
    mic: list[bytes] = field(default_factory=list)
    out: list[bytes] = field(default_factory=list)
    times: list[FrameTimes] = field(default_factory=list)

    def tap(self, far: bytes, mic: bytes, out: bytes, times: FrameTimes) -> None:
        self.far.append(far)
        self.mic.append(mic)
        self.out.append(out)
        self.times.append(times)


def samples_of(frames: list[bytes]) -> Samples:
    return np.frombuffer(b"".join(frames), np.int16) / 32768.0


# ---- after: figures and picture

LEVEL_WINDOW_FRAMES = 40  # window of the levels over time: 0.4 s, two or three syllables
ACTIVE_DBFS = -50.0  # below this there is no speech, and no echo reduction is drawn


@dataclass(frozen=True)
class Figures:
    """Figures of the whole call. Arrays have one element per frame."""

    learning_db: float  # echo reduction in the first two seconds of the far end alone
    reduction_db: float  # in the second half of it
    parts_ms: dict[str, Samples]  # latency in the order in which a sound meets it
    total_ms: Samples  # their sum
    processing_ms: float  # median
    xruns: int


def measure(recording: Recording, seconds: float) -> Figures:
    mic, out = samples_of(recording.mic), samples_of(recording.out)

    def reduction_db(start_s: float, end_s: float) -> float:
        part = slice(round(start_s * RATE_HZ), round(end_s * RATE_HZ))
        return float(power_db(mic[part]) - power_db(out[part]))

    parts_ms = {
        "capture": np.array([times.capture_wait_ms for times in recording.times]),
        "processing": np.array([times.processing_ms for times in recording.times]),
        "algorithm": np.array([times.algorithmic_ms for times in recording.times]),
        "playback queue": np.array([times.playback_queue_ms for times in recording.times]),
    }
    return Figures(
        learning_db=reduction_db(0, 2),
        reduction_db=reduction_db(seconds / 6, seconds / 3),
        parts_ms=parts_ms,
        total_ms=np.array([times.total_ms for times in recording.times]),
        processing_ms=float(np.median(parts_ms["processing"])),
        xruns=recording.times[-1].xruns,
    )


def power_db(samples: Samples) -> float:
    # Zeros count as half a step of 16 bits, the least level that the format can represent.
    return float(10 * np.log10(np.mean(samples**2) + (0.5 / 32768) ** 2))


def draw(path: Path, recording: Recording, figures: Figures, seconds: float, near_end: str) -> None:
    """Draw one page: spectrograms of microphone and output, echo reduction, and latency."""
    from matplotlib.figure import Figure

    mic, out = samples_of(recording.mic), samples_of(recording.out)
    figure = Figure(figsize=(13, 12), layout="constrained")
    grid = figure.add_gridspec(4, 2, height_ratios=[3, 3, 2.2, 2.2])
    heard = figure.add_subplot(grid[0, :])
    left = figure.add_subplot(grid[1, :], sharex=heard, sharey=heard)
    change = figure.add_subplot(grid[2, :], sharex=heard)
    figure.suptitle(
        f"apmpi: echo {figures.reduction_db:.0f} dB down, "
        f"latency {np.median(figures.total_ms):.0f} ms, {figures.xruns} xruns",
        fontsize=18,
    )

    image = draw_spectrogram(heard, mic, RATE_HZ, "Before: what the microphone hears")
    draw_spectrogram(left, out, RATE_HZ, "After: what apmpi sends")
    figure.colorbar(image, ax=[heard, left], label="level per band (dBFS)", pad=0.01)

    draw_change(change, mic, out, seconds, near_end)
    change.set_xlim(0, len(mic) / RATE_HZ)
    draw_latency(figure.add_subplot(grid[3, 0]), figures)
    draw_parts(figure.add_subplot(grid[3, 1]), figures)
    content = io.BytesIO()
    figure.savefig(content, dpi=110, format="png")
    replace(path, content.getvalue())


def draw_change(axes: Axes, mic: Samples, out: Samples, seconds: float, near_end: str) -> None:
    before, after = (level_dbfs(sound, FRAME_SAMPLES, LEVEL_WINDOW_FRAMES) for sound in (mic, out))
    time_s = (np.arange(len(before)) + 0.5) * FRAME_SAMPLES / RATE_HZ
    quieter_db = np.where(before > ACTIVE_DBFS, before - after, np.nan)
    parts = (("far end alone", "tab:red"), ("both talk", "tab:purple"), (f"{near_end} alone", "tab:blue"))
    for index, (name, colour) in enumerate(parts):
        start_s, end_s = index * seconds / 3, (index + 1) * seconds / 3
        here = (time_s >= start_s) & (time_s < end_s)
        axes.fill_between(time_s[here], 0, quieter_db[here], color=colour, alpha=0.25, linewidth=0)
        axes.plot(time_s[here], quieter_db[here], color=colour)
        axes.axvline(end_s, color="0.6", linewidth=0.8)
        middle, top = (start_s + end_s) / 2, axes.get_xaxis_transform()
        axes.text(middle, 0.97, name, color=colour, ha="center", va="top", transform=top)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.margins(y=0.15)
    axes.set(
        title="Echo reduction over time (below zero: the gain control makes the near end louder)",
        xlabel="time (s)",
        ylabel="quieter by (dB)",
    )
    axes.grid(alpha=0.3)


def draw_latency(axes: Axes, figures: Figures) -> None:
    total_ms = figures.total_ms
    median, high = np.percentile(total_ms, [50, 99])
    axes.stairs(*np.histogram(total_ms, bins=50), fill=True, color="tab:green")
    axes.axvline(median, color="black", label=f"median {median:.1f} ms")
    axes.axvline(high, color="black", linestyle="--", label=f"99 % below {high:.1f} ms")
    axes.set(title="Latency of every frame", xlabel="latency (ms)", ylabel="frames")
    axes.legend()


def draw_parts(axes: Axes, figures: Figures) -> None:
    start_ms = 0.0
    for name, part_ms in figures.parts_ms.items():
        median = float(np.median(part_ms))
        axes.barh(0, median, left=start_ms, label=f"{name} {median:.1f} ms")
        start_ms += median
    axes.set(title="Where it comes from (medians)", xlabel="latency (ms)", yticks=[], ylim=(-0.6, 1.4))
    axes.legend(ncols=2, loc="upper left")


def summarise(recording: Recording, folder: Path, seconds: float, device: str | None) -> None:
    """Write mic.wav and report.png, and print the figures."""
    heard_s = len(recording.times) / FRAMES_PER_S
    if heard_s < seconds / 3:
        print(f"\nStopped after {heard_s:.1f} s: too early for figures.")
        return
    write_wav(folder / "mic.wav", samples_of(recording.mic))
    figures = measure(recording, seconds)
    draw(folder / "report.png", recording, figures, seconds, "near end" if device is None else "you")

    median, high = np.percentile(figures.total_ms, [50, 99])
    parts = " + ".join(f"{name} {np.median(part_ms):.1f}" for name, part_ms in figures.parts_ms.items())
    learning = f"the first 2 s, still learning: {figures.learning_db:.1f} dB"
    print(f"""
Echo reduction   {figures.reduction_db:.1f} dB while the far end talks alone ({learning})
Latency          median {median:.1f} ms, 99 % below {high:.1f} ms: {parts}
Processor        {figures.processing_ms:.2f} ms for each 10 ms: {figures.processing_ms * 10:.1f} % of one core
Xruns            {figures.xruns}

{folder}/report.png   all this as a picture
{folder}/far.wav      what the far end said
{folder}/mic.wav      what the microphone heard
{folder}/out.wav      what the daemon made of it
listen: {folder}/mic.wav, then {folder}/out.wav: the echo of the first voice is gone""")
