"""Samples in 10 ms at each rate; a frame of any other length is refused."""

from apmpi import AudioFrame, AudioProcessingModule

SAMPLE_RATES_10MS = {
    8000: 80,  # narrowband
    16000: 160,  # wideband
    32000: 320,  # super-wideband
    48000: 480,  # full band, recommended
}


def main() -> None:
    for sample_rate, samples_per_channel in SAMPLE_RATES_10MS.items():
        frame = AudioFrame.create(sample_rate, 1, samples_per_channel)
        assert frame.duration == 0.01, "frame must be exactly 10 ms"
        apm = AudioProcessingModule(noise_suppression=True)
        apm.process_stream(frame)
        print(f"{sample_rate} Hz: {samples_per_channel} samples, {apm.latency_ms:.1f} ms latency")


if __name__ == "__main__":
    main()
