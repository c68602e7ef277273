"""An own class around the module that measures the noise and adapts: the filter is added where it is loud.

python adaptive.py [SECONDS]
"""

import asyncio
import sys

import numpy as np

from apmpi import AudioFrame, AudioProcessingModule, MediaDevices

LOUD = 0.1  # of full scale


class AdaptiveAPM:
    """Adapts its processing to how loud it is."""

    def __init__(self) -> None:
        self.apm = AudioProcessingModule(noise_suppression=True, auto_gain_control=True)
        self.noise_level = 0.0

    def process_adaptive(self, frame: AudioFrame) -> None:
        self.noise_level = self.measure_noise(frame)
        # No new module: features are switched without a click, and what was learned stays.
        self.apm.configure(high_pass_filter=self.noise_level > LOUD)
        self.apm.process_stream(frame)

    def measure_noise(self, frame: AudioFrame) -> float:
        """RMS, 1.0 is full scale."""
        samples = frame.to_ndarray().astype(np.float32)  # to_ndarray() itself copies nothing
        return float(np.sqrt(np.mean(samples**2)) / 32768.0)


async def main(seconds: float) -> None:
    adaptive = AdaptiveAPM()
    capture = MediaDevices().open_input(
        enable_aec=False, noise_suppression=False, high_pass_filter=False, auto_gain_control=False
    )
    loud = 0
    for _ in range(round(seconds * 100)):
        adaptive.process_adaptive(await anext(capture.source))
        loud += adaptive.noise_level > LOUD
    await capture.aclose()
    print(f"loud for {loud / 100:.1f} of {seconds:g} s")


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0))
