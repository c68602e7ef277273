"""A voice that stops when somebody speaks, and not because it hears itself.

python interruptible.py ANSWER.wav        (mono, 16 bit, 48 kHz)
"""

import asyncio
import sys
import wave
from collections.abc import AsyncIterator

from apmpi import AudioFrame, MediaDevices
from apmpi.agents.barge_in import BargeInDetector


async def track_of(answer: wave.Wave_read) -> AsyncIterator[AudioFrame]:
    while samples := answer.readframes(480):
        yield AudioFrame(samples, 48000, 1, len(samples) // 2)


async def main(answer: wave.Wave_read) -> None:
    devices, detector = MediaDevices(), BargeInDetector()
    capture, player = devices.open_input(), devices.open_output()
    track = track_of(answer)
    await player.add_track(track)
    await player.start()

    assert capture.apm
    spoken = "all of it"
    for frame_number in range(answer.getnframes() // 480):
        await anext(capture.source)  # a speech recogniser's input
        detector.update(capture.apm.stats(), 0.01)
        if detector.state.allowed:
            await player.remove_track(track)
            spoken = f"{frame_number / 100:.1f} s, then somebody spoke"
            break
    print(f"answer: {spoken}")
    await capture.aclose()
    await player.aclose()


if __name__ == "__main__":
    with wave.open(sys.argv[1]) as file:
        asyncio.run(main(file))
