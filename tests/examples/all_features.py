"""All features, with both streams in this program's own hands: plays a WAV file and records without its echo.

python all_features.py FAR.wav        (mono, 16 bit, 48 kHz; writes clean.wav)
"""

import asyncio
import sys
import wave

from apmpi import AudioFrame, AudioProcessingModule, MediaDevices


async def main(far: wave.Wave_read) -> None:
    apm = AudioProcessingModule(
        echo_cancellation=True, noise_suppression=True, high_pass_filter=True, auto_gain_control=True
    )
    devices = MediaDevices()
    player = devices.open_output()
    await player.start()
    capture = devices.open_input(
        enable_aec=False, noise_suppression=False, high_pass_filter=False, auto_gain_control=False
    )
    # The known part of the delay from the loudspeaker to the microphone. The module estimates the rest.
    apm.set_stream_delay_ms(50)

    with wave.open("clean.wav", "wb") as clean:
        clean.setnchannels(1)
        clean.setsampwidth(2)
        clean.setframerate(48000)
        async for capture_frame in capture.source:  # every 10 ms
            samples = far.readframes(480)
            if len(samples) < 960:
                break
            playback_frame = AudioFrame(samples, 48000, 1, 480)
            apm.process_reverse_stream(playback_frame)
            await player.play(playback_frame)
            apm.process_stream(capture_frame)
            clean.writeframes(capture_frame.data)

    stats = apm.stats()
    print(f"echo: {stats.erle_db:.0f} dB less, {stats.delay_ms:.0f} ms behind the far end")
    await capture.aclose()
    await player.aclose()


if __name__ == "__main__":
    with wave.open(sys.argv[1]) as far_end:
        asyncio.run(main(far_end))
