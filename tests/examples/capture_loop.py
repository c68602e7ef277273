"""The microphone into a LiveKit AudioSource, each frame processed by the program itself.

python capture_loop.py [SECONDS]        (needs apmpi[livekit])
"""

import asyncio
import sys

from livekit.rtc import AudioSource, LocalAudioTrack

from apmpi import AudioProcessingModule, MediaDevices, MicrophoneSource


async def capture_with_apm(microphone: MicrophoneSource, source: AudioSource) -> None:
    """Captures audio with processing applied, until the microphone ends."""
    apm = AudioProcessingModule(noise_suppression=True, auto_gain_control=True, high_pass_filter=True)
    async for raw_frame in microphone:  # 10 ms each: the microphone's clock is the pace, no sleep is needed
        apm.process_stream(raw_frame)
        await source.capture_frame(raw_frame)


async def main(seconds: float) -> None:
    source = AudioSource(sample_rate=48000, num_channels=1)
    track = LocalAudioTrack.create_audio_track("processed-audio", source)
    capture = MediaDevices().open_input(
        enable_aec=False, noise_suppression=False, high_pass_filter=False, auto_gain_control=False
    )
    work = asyncio.create_task(capture_with_apm(capture.source, source))
    await asyncio.sleep(seconds)  # a program would publish the track here
    await capture.aclose()
    await work  # raises what went wrong with the microphone
    print(f"{track.name}: {seconds:g} s, {capture.source.dropped} frames dropped")
    await source.aclose()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0))
