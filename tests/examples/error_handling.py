"""A frame that can't be processed is refused, nothing is changed by it, and the next one is processed."""

from apmpi import AudioFrame, AudioProcessingModule


def safe_process_stream(apm: AudioProcessingModule, frame: AudioFrame) -> bool:
    """True if processed, False if the frame is as it was."""
    try:
        apm.process_stream(frame)
        return True
    except RuntimeError as error:
        print(f"APM processing failed: {error}")
        return False


def main() -> None:
    apm = AudioProcessingModule(noise_suppression=True)
    for samples_per_channel in (480, 960, 480):  # the second one is 20 ms
        frame = AudioFrame.create(48000, 1, samples_per_channel)
        if safe_process_stream(apm, frame):
            print("processed")
        else:
            print("skipped")


if __name__ == "__main__":
    main()
