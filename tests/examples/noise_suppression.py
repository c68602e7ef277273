"""Noise suppression only: the microphone into noisy.wav, and without its noise into clean.wav.

python noise_suppression.py [SECONDS]
"""

import asyncio
import sys
import wave

from apmpi import AudioProcessingModule, MediaDevices


async def main(seconds: float) -> None:
    apm = AudioProcessingModule(noise_suppression=True)
    # The unprocessed microphone: this program processes its frames.
    capture = MediaDevices().open_input(
        enable_aec=False, noise_suppression=False, high_pass_filter=False, auto_gain_control=False
    )
    with wave.open("noisy.wav", "wb") as noisy, wave.open("clean.wav", "wb") as clean:
        for file in (noisy, clean):
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(48000)
        for _ in range(round(seconds * 100)):
            frame = await anext(capture.source)  # 10 ms at 48 kHz
            noisy.writeframes(frame.data)
            apm.process_stream(frame)  # in place
            clean.writeframes(frame.data)
    await capture.aclose()
    print(f"noise floor: {apm.stats().noise_floor_dbfs:.0f} dBFS")


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0))
