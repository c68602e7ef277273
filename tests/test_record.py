"""A recording has the signals and figures of the service, and its page shows them in a real browser."""

from __future__ import annotations

import json
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import daemon
import numpy as np
import pytest
import socket_rig
import soundfile
from daemon import APMPI, Configure, Daemon
from socket_rig import Served

from apmpi.errors import CommandError, EndpointError
from apmpi.tools import page

# pytest finds fixtures by their names here.
configure, start, served = daemon.configure, daemon.start, socket_rig.served

RATE_HZ = 48000


def record(*arguments: object, cwd: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [APMPI, "record", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, **more)
    print(f"$ apmpi record {arguments}\n{done.stdout}{done.stderr}exit status {done.returncode}")
    assert "Traceback" not in done.stderr
    return done


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---- record


def test_a_recording_is_what_the_service_heard_and_did(
    configure: Configure, tmp_path: Path, start: type[Daemon]
) -> None:
    """Far end and output are found again in the files of the service, at the same place in both."""
    path = configure()
    path.write_text(path.read_text() + "socket: socket\n")
    service = start(path, "--seconds", "5")
    service.hear("running at")
    done = record("-o", "call.wav", "--seconds", "2", "--socket", "socket", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout == (
        "call.wav: 2.0 s (far end 1, microphone 2, output 3), 0 xruns; apmpi report call.wav shows it\n"
    )
    assert service.ended() == 0
    assert not list(tmp_path.glob("*.part"))

    call, rate_hz = soundfile.read(tmp_path / "call.wav", dtype="int16")
    assert rate_hz == RATE_HZ and call.shape == (2 * RATE_HZ, 3)
    far, _ = soundfile.read(tmp_path / "far.wav")
    clean, _ = soundfile.read(tmp_path / "clean.wav", dtype="int16")
    played = np.clip(np.rint(far * 32768), -32768, 32767).astype("<i2")
    places = [
        whole.tobytes().find(part.tobytes()) for whole, part in ((played, call[:, 0]), (clean, call[:, 2]))
    ]
    print(f"begins {places[0] / 2 / RATE_HZ:.2f} s after the service")
    assert places[0] == places[1] >= 0
    # The microphone hears the far end 44 ms later (14 ms until it is played, 30 ms on its way).
    spectrum = np.fft.rfft(call[:, 1], 2 * len(call)) * np.conj(np.fft.rfft(call[:, 0], 2 * len(call)))
    late_ms = 1000 * int(np.argmax(np.fft.irfft(spectrum))) / RATE_HZ
    print(f"echo after {late_ms:.1f} ms")
    assert late_ms == pytest.approx(44, abs=2)

    first, *figures, last = lines_of(tmp_path / "call.jsonl")
    assert first["recording"]["channels"] == {"far_end": 1, "microphone": 1, "output": 1}
    assert last["end"] == {"seconds": 2.0, "lost_frames": 0, "xruns": 0, "reason": "complete"}
    seconds = np.array([line["seconds"] for line in figures])
    assert len(figures) == pytest.approx(20, abs=4) and np.all(np.diff(seconds) >= 0)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_recording_may_be_stopped(served: Served, tmp_path: Path, stop: signal.Signals) -> None:
    command = [APMPI, "record", "-o", tmp_path / "call.wav", "--socket", served.path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    part = tmp_path / "call.wav.part"
    deadline_s = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size > 100_000):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    process.send_signal(stop)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 0 and "0 xruns" in said
    assert soundfile.info(tmp_path / "call.wav").frames > 100_000 / 6 / 2
    assert lines_of(tmp_path / "call.jsonl")[-1]["end"]["reason"] == "stopped"


def test_a_service_that_stops_leaves_the_recording(tmp_path: Path) -> None:
    service = Served(tmp_path)
    threading.Timer(1.2, service.close).start()
    done = record("-o", "call.wav", "--socket", service.path, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"apmpi: {service.path}: the service has stopped; what came before is kept\n"
    assert soundfile.info(tmp_path / "call.wav").frames > RATE_HZ / 4


def test_what_the_recorder_misses_is_silence_and_is_counted(served: Served, tmp_path: Path) -> None:
    def skip() -> None:
        served.latency.frames += 50

    threading.Timer(1.5, skip).start()
    done = record("-o", "call.wav", "--seconds", "2.5", "--socket", served.path, cwd=tmp_path)
    assert done.returncode == 0 and ", 50 frames lost; " in done.stdout
    assert soundfile.info(tmp_path / "call.wav").frames == 2.5 * RATE_HZ
    assert lines_of(tmp_path / "call.jsonl")[-1]["end"]["lost_frames"] == 50


def test_a_service_without_sound_is_waited_for_in_vain_no_longer_than_asked(tmp_path: Path) -> None:
    service = Served(tmp_path)
    service.stop_sound()
    service.board.parked = "waiting: microphone.device: 'hw:Device' has gone (unplugged?)"
    before = sorted(tmp_path.iterdir())
    try:
        done = record("-o", "call.wav", "--seconds", "0.5", "--socket", service.path, cwd=tmp_path)
    finally:
        service.close()
    assert done.returncode == 2
    assert done.stderr == f"apmpi: call.wav: there was no sound to record ({service.board.parked})\n"
    assert sorted([*tmp_path.iterdir(), service.path]) == before


def test_a_recording_ends_at_its_size(served: Served, tmp_path: Path) -> None:
    done = record("-o", "call.wav", "--megabytes", "0.1", "--socket", served.path, cwd=tmp_path)
    assert done.returncode == 0
    assert 0.09e6 < (tmp_path / "call.wav").stat().st_size <= 0.1e6 + 80  # and the header


def test_a_full_disk_is_one_sentence_and_keeps_what_it_holds(served: Served, tmp_path: Path) -> None:
    def no_file_beyond_200_kb() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    done = record("-o", "call.wav", "--socket", served.path, cwd=tmp_path, preexec_fn=no_file_beyond_200_kb)
    assert done.returncode == 1
    # Where the machine has little time for sound it is the figures that fill it.
    full = r"apmpi: call\.(wav|jsonl): cannot be written \(File too large\); what came before is kept\n"
    assert re.fullmatch(full, done.stderr)
    sound, _ = soundfile.read(tmp_path / "call.wav")
    assert 0 < sound.size * 2 <= 200_000
    assert lines_of(tmp_path / "call.jsonl")


def test_what_cannot_be_recorded_is_one_sentence_and_leaves_nothing(served: Served, tmp_path: Path) -> None:
    socket = ("--socket", served.path)
    for arguments, expected in (
        (("-o", "call.wav", "--socket", "no"), "no: no service answers, expected one"),
        (("-o", "no/call.wav", *socket), "no/call.wav: cannot be written (its folder does not exist)"),
        (("-o", "call.jsonl", *socket), "call.jsonl: would be the statistics' own name, expected NAME.wav"),
        (
            ("-o", "call.wav", "--megabytes", "1e-6", *socket),
            "call.wav: 1e-06 MB hold no sound, expected more",
        ),
        (("-o", "call.wav", "--seconds", "0"), "argument --seconds: '0' given, expected seconds above 0"),
    ):
        before = sorted(tmp_path.iterdir())
        done = record(*arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith(f"apmpi: {expected}") and done.stderr.count("\n") == 1
        assert sorted(tmp_path.iterdir()) == before


# ---- report


def recording(folder: Path, rng: np.random.Generator, seconds: float = 4.0) -> Path:
    """Known sound: noise, half of it, a tenth of it; and figures."""
    count = int(seconds * RATE_HZ)
    far = 0.2 * rng.standard_normal(count)
    soundfile.write(folder / "call.wav", np.stack([far, far / 2, far / 10], axis=1), RATE_HZ)
    channels = {"far_end": 1, "microphone": 1, "output": 1}
    lines: list[dict[str, Any]] = [
        {"recording": {"started": "2026-01-02 03:04:05 UTC", "sample_rate_hz": RATE_HZ, "channels": channels}}
    ]
    for number in range(round(seconds * 10)):
        lines.append(
            {
                "seconds": number / 10, "erle_db": 20.0 + number, "delay_ms": 48.0, "delay_confidence": 0.9,
                "drift_ppm": None, "drift_ppm_output": -12.5, "latency_median_ms": 17.0,
                "latency_max_ms": 19.0, "xruns": number // 20, "reference_present": True,
                "double_talk": number > 20, "microphone_clipping": False, "references": 1 + (number >= 30),
            }
        )  # fmt: skip
    lines.append({"end": {"seconds": seconds, "lost_frames": 0, "xruns": 1, "reason": "complete"}})
    (folder / "call.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "call.wav"


# What the page's players hold, decoded by the browser, and what pressing and clicking does.
PROBE = """<script>
(async () => {
  const told = {sound: {}, errors: window.errors};
  for (const player of players) {
    const bytes = await (await fetch(player.src)).arrayBuffer();
    const sound = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(bytes);
    const samples = sound.getChannelData(0);
    const rms = Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length);
    told.sound[player.id] = [samples.length, rms, player.parentElement.querySelector("span").textContent];
  }
  const box = document.getElementById("picture").getBoundingClientRect();
  const x = box.left + box.width * (begin + width / 2);
  document.getElementById("picture").dispatchEvent(new MouseEvent("click", {clientX: x, bubbles: true}));
  told.middle_s = players[0].currentTime;
  await players[2].play();
  told.goes_on_s = players[2].currentTime;
  const picture = document.querySelector("img");
  told.picture = [picture.naturalWidth, picture.naturalHeight];
  told.outside = performance.getEntriesByType("resource").filter(one => !one.name.startsWith("data:")).length;
  await fetch("http://127.0.0.1:PORT/", {method: "POST", mode: "no-cors", body: JSON.stringify(told)});
})().catch(error => fetch("http://127.0.0.1:PORT/", {method: "POST", mode: "no-cors", body: String(error)}));
</script></body>"""


FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio",
    "--autoplay-policy=no-user-gesture-required", "--disable-features=LocalNetworkAccessChecks",
    "--remote-debugging-port=0",  # stays until it is ended
)  # fmt: skip


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_the_page_in_a_browser(tmp_path: Path, rng: np.random.Generator) -> None:
    call = recording(tmp_path, rng)
    done = subprocess.run([APMPI, "report", call], capture_output=True, text=True, timeout=60)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    text = (tmp_path / "call.html").read_text()
    assert "24.8 to" not in text and "39.5 dB, 90 % within" in text  # 20 to 59 in steps of 1
    assert "1 while it was recorded" in text and "-12.5 ppm" in text
    assert "plays 100% of the time; left and right differ in 25% of it: two references" in text

    heard: list[str] = []

    class Ear(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Ear) as server:
        server.timeout = 60
        probe = PROBE.replace("PORT", str(server.server_port)).replace("RATE", str(RATE_HZ))
        errors = "<script>window.errors = []; onerror = error => { errors.push(error) };</script>"
        probed = tmp_path / "probed.html"
        probed.write_text(text.replace("<head>", f"<head>{errors}").replace("</body>", probe))
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            browser = subprocess.Popen(
                ["chromium", *FLAGS, f"--user-data-dir={profile}", probed.as_uri()],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                server.handle_request()
            finally:
                browser.terminate()
                browser.wait(20)
    assert heard, "the browser did not show the page to its end within a minute"
    print(heard)
    told = json.loads(heard[0])
    assert told["errors"] == [] and told["outside"] == 0
    original, _ = soundfile.read(call)
    for channel, name in enumerate(("far_end", "microphone", "output")):
        samples, rms, label = told["sound"][name]
        assert samples == len(original) and label == "4.0 s"
        assert rms == pytest.approx(np.sqrt(np.mean(original[:, channel] ** 2)), rel=1e-3)
    assert told["middle_s"] == pytest.approx(2.0, abs=0.02)
    assert told["goes_on_s"] == pytest.approx(2.0, abs=0.2)
    assert told["picture"][0] > 1000 and told["picture"][1] > 1000


def test_what_is_no_recording_is_one_sentence(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call = recording(tmp_path, rng, seconds=0.5)
    statistics = tmp_path / "call.jsonl"
    good = statistics.read_text()
    (tmp_path / "text.wav").write_text("no sound")
    shutil.copy(statistics, tmp_path / "text.jsonl")
    soundfile.write(tmp_path / "mono.wav", np.zeros(100), RATE_HZ)
    shutil.copy(statistics, tmp_path / "mono.jsonl")
    for arguments, expected in (
        (
            ("no.wav", "page.html"),
            "no.jsonl: cannot be read (No such file or directory), expected the statistics beside",
        ),
        (("text.wav", "page.html"), "text.wav: not a WAV file (Format not recognised)"),
        (
            ("mono.wav", "page.html"),
            "mono.wav: has 1 channels at 48000 Hz, expected 3 channels at 48000 Hz as in mono.jsonl",
        ),
        (("call.wav", "call.wav"), "call.wav: is the recording itself, expected another file"),
        (("call.wav", "no/page.html"), "no/page.html: cannot be written (No such file or directory)"),
    ):
        with pytest.raises((CommandError, EndpointError)) as caught:
            page.main(*map(Path, arguments))
        print(caught.value)
        assert str(caught.value).startswith(expected)
    done = subprocess.run([APMPI, "report", "no.wav"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("apmpi: no.jsonl: cannot be read")
    for broken, expected in (
        (good.replace("{", "[", 1), "call.jsonl:1: is no line of statistics, expected JSON"),
        (good.replace("48000", '"fast"'), "call.jsonl:1: tells nothing of a recording, expected its shape"),
        (good[:-20], "call.jsonl:7: is no line of statistics, expected JSON"),
    ):
        statistics.write_text(broken)
        with pytest.raises((CommandError, EndpointError)) as caught:
            page.load(call)
        assert str(caught.value).endswith(expected)


def test_damaged_recordings_never_break_the_reader(tmp_path: Path, rng: np.random.Generator) -> None:
    """Bytes changed, cut out, put in, in the sound's header and in the statistics."""
    call = recording(tmp_path, rng, seconds=0.3)
    statistics = tmp_path / "call.jsonl"
    whole = {call: call.read_bytes(), statistics: statistics.read_bytes()}
    refused = drawn = 0
    for round_number in range(120):
        path = (call, statistics)[round_number % 2]
        content = bytearray(whole[path])
        for _ in range(rng.integers(1, 6)):
            at = int(rng.integers(min(len(content), 2000)))
            change: Callable[[], None] = (
                lambda content=content, at=at: content.__setitem__(at, int(rng.integers(256))),
                lambda content=content, at=at: content.__delitem__(slice(at, at + int(rng.integers(1, 50)))),
                lambda content=content, at=at: content.__setitem__(
                    slice(at, at), rng.bytes(int(rng.integers(1, 50)))
                ),
            )[rng.integers(3)]
            change()
        path.write_bytes(content)
        try:
            damaged = page.load(call)
        except (CommandError, EndpointError) as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            page.summary(damaged)
            if drawn < 3:
                drawn += 1
                page.draw(damaged)
        path.write_bytes(whole[path])
    print(f"{refused} of 120 refused, {drawn} drawn")
    assert 30 < refused < 120
