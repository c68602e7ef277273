"""Microphone and loudspeaker with all processing built in: plays a WAV file, records without its echo.

python media_devices.py FAR.wav        (mono, 16 bit, 48 kHz; writes clean.wav)
"""

import asyncio
import sys
import wave
from collections.abc import AsyncIterator

from apmpi import AudioFrame, MediaDevices


async def track_of(far: wave.Wave_read) -> AsyncIterator[AudioFrame]:
    """Anything that gives frames is a track; LiveKit's tracks are, too."""
    while samples := far.readframes(480):
        yield AudioFrame(samples, 48000, 1, len(samples) // 2)


async def main(far: wave.Wave_read) -> None:
    devices = MediaDevices()
    capture = devices.open_input(
        enable_aec=True,  # echo cancellation
        noise_suppression=True,
        auto_gain_control=True,
        high_pass_filter=True,
    )
    player = devices.open_output()
    await player.add_track(track_of(far))
    await player.start()

    with wave.open("clean.wav", "wb") as clean:
        clean.setnchannels(1)
        clean.setsampwidth(2)
        clean.setframerate(48000)
        for _ in range(far.getnframes() // 480):
            frame = await anext(capture.source)  # processed already
            clean.writeframes(frame.data)

    assert capture.apm
    stats = capture.apm.stats()
    print(f"echo: {stats.erle_db:.0f} dB less, {stats.delay_ms:.0f} ms behind the far end")
    print(f"lost: {capture.source.dropped} frames, {capture.input_stream.xruns + player.xruns} xruns")
    await capture.aclose()
    await player.aclose()


if __name__ == "__main__":
    with wave.open(sys.argv[1]) as far_end:
        asyncio.run(main(far_end))
