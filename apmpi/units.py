"""Units of time and sound, each stated once."""

FRAMES_PER_S = 100
FRAME_MS = 1000.0 / FRAMES_PER_S
DAY_S = 24 * 3600
NS_PER_S = 1_000_000_000
FRAME_NS = NS_PER_S // FRAMES_PER_S
# A sample inside of apmpi is a signed integer of 16 bits. Cards may have others (cards/formats.py).
SAMPLE_BYTES = 2
