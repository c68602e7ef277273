"""Suppression that adapts to the noise, and prints each change.

python adaptive.py [SECONDS]
"""

import asyncio
import sys

from apmpi import AudioFrame, AudioProcessingModule, MediaDevices

LOUD_DBFS = -45.0


class AdaptiveAPM:
    """Adapts its processing to audio conditions."""

    def __init__(self) -> None:
        self.apm = AudioProcessingModule(noise_suppression="auto", auto_gain_control=True)
        self.noise_level_dbfs = -100.0

    def process_adaptive(self, frame: AudioFrame) -> None:
        self.apm.process_stream(frame)
        self.noise_level_dbfs = self.apm.stats().noise_floor_dbfs
        # No new module: settings change without a click, and what was learned stays.
        self.apm.configure(high_pass_filter=self.noise_level_dbfs > LOUD_DBFS)


async def main(seconds: float) -> None:
    adaptive = AdaptiveAPM()
    capture = MediaDevices().open_input(
        enable_aec=False, noise_suppression=False, high_pass_filter=False, auto_gain_control=False
    )
    used_db = None
    for _ in range(round(seconds * 100)):
        adaptive.process_adaptive(await anext(capture.source))
        stats = adaptive.apm.stats()
        if stats.noise_suppression_db != used_db:
            used_db = stats.noise_suppression_db
            noise, above = (
                f"noise at {stats.noise_floor_dbfs:.0f} dBFS",
                f"talker {stats.snr_db:.0f} dB above it",
            )
            print(f"{noise}, {above}: {used_db:g} dB")
    await capture.aclose()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0))
