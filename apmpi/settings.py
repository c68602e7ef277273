"""The settings: one row for each, with its name, type, range, unit, meaning and default.

`Settings` and its parts are read from a YAML file by apmpi.service.yaml_reader. Features, Tuning and
stream_delay_ms are also the keywords of AudioProcessingModule; Features and Tuning are, under the same names,
the members of apm_config_t in native/apm/apm.h.

The reader, the API's checks and what a reload changes follow from the rows. What has to be written out
(signatures and docstring of the API, the C struct with its defaults, config/apmpi.yaml) is checked against
them by tests/test_settings.py.
"""

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

SAMPLE_RATES_HZ = (8000, 16000, 32000, 48000)
CHANNELS_MIN, CHANNELS_MAX = 1, 8
# Channels of a card, of which `use` selects those that are processed: MADI, the widest interface, has 64.
CARD_CHANNELS_MAX = 64
STREAM_DELAY_MIN_MS, STREAM_DELAY_MAX_MS = 0, 500
# Largest x and y of a microphone, to either side: an array as wide as a table.
POSITION_MAX_MM = 1000
DEVICE_RATE_MIN_HZ, DEVICE_RATE_MAX_HZ = 8000, 192_000
# In the order of apm_noise_t in native/apm/apm.h.
NOISE_SUPPRESSION_LEVELS = ("low", "moderate", "high", "very_high", "auto")
# The level that noise_suppression: true stands for.
NOISE_SUPPRESSION_DEFAULT = "high"


@dataclass(frozen=True, slots=True)
class Row:
    """Facts about a setting beside its name, type and default.

    meaning     one line, which config/apmpi.yaml and the API's documentation contain
    low, high   smallest and largest number, both allowed
    unit        of the numbers in a sentence; empty where the meaning states it
    choices     the allowed values, if they can be listed
    live        whether a reload changes it between two frames, without a restart
    """

    meaning: str
    low: float = -math.inf
    high: float = math.inf
    unit: str = ""
    choices: tuple[str | int, ...] = ()
    live: bool = False


@dataclass(frozen=True, slots=True)
class Features:
    """Stages that can be switched on and off."""

    echo_cancellation: Annotated[bool, Row("cancels the echo of what the loudspeaker plays")] = True
    noise_suppression: Annotated[
        bool | str,
        Row("attenuates noise such as fans, traffic and hiss", choices=NOISE_SUPPRESSION_LEVELS),
    ] = True
    high_pass_filter: Annotated[bool, Row("removes rumble and handling noise below speech")] = True
    auto_gain_control: Annotated[bool, Row("brings quiet and loud talkers to one level")] = True
    learned_gain: Annotated[bool, Row("a small recurrent network helps to detect speech")] = True
    array: Annotated[bool, Row("makes two and more microphones one beam towards who speaks")] = False


@dataclass(frozen=True, slots=True)
class Tuning:
    """Parameters of the stages."""

    high_pass_hz: Annotated[float, Row("cut-off (-3 dB) of high_pass_filter", 20, 300, "Hz")] = 80.0
    gain_target_dbfs: Annotated[
        float, Row("level of active speech that auto_gain_control aims at", -40, -6, "dBFS")
    ] = -20.0
    gain_max_db: Annotated[float, Row("largest amplification by auto_gain_control", 0, 50, "dB")] = 32.0
    headroom_db: Annotated[float, Row("least distance of a peak from full scale", 0, 20, "dB")] = 1.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Source or sink of samples: one of `device` and `file`, or for a far end `microphone_channels`."""

    device: Annotated[str | None, Row("ALSA name of a PCM")] = None
    file: Annotated[Path | None, Row("WAV file")] = None
    # Of a microphone's card up to CARD_CHANNELS_MAX.
    channels: Annotated[int, Row("channels of the device or file", CHANNELS_MIN, CHANNELS_MAX)] = 1
    # Without it the device has the sample rate of the processing.
    sample_rate_hz: Annotated[
        int | None, Row("sample rate of the device", DEVICE_RATE_MIN_HZ, DEVICE_RATE_MAX_HZ, "Hz")
    ] = None
    # Both counted from 1. Without `use` all but those of the far end are used.
    use: Annotated[
        tuple[int, ...],
        Row("channels of the microphone that are used", CHANNELS_MIN, CARD_CHANNELS_MAX),
    ] = ()
    # x to the right and y forward, seen from above, in the order of the channels that are used.
    positions_mm: Annotated[
        tuple[tuple[float, float], ...],
        Row("places of the microphones that are used", -POSITION_MAX_MM, POSITION_MAX_MM, "mm"),
    ] = ()
    microphone_channels: Annotated[
        tuple[int, ...],
        Row("channels of the microphone's card that are the far end", CHANNELS_MIN, CARD_CHANNELS_MAX),
    ] = ()
    # Line of the YAML file, for messages.
    line: int | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be configured."""

    sample_rate_hz: Annotated[
        int, Row("samples per second of the processing", choices=SAMPLE_RATES_HZ, unit="Hz")
    ] = 48000
    features: Annotated[Features, Row("stages that process the microphone's signal", live=True)] = Features()
    tuning: Annotated[Tuning, Row("parameters of these stages", live=True)] = Tuning()
    microphone: Annotated[Endpoint, Row("source of near-end speech")]
    speaker: Annotated[Endpoint | None, Row("sink that plays the far end")] = None
    far_end: Annotated[Endpoint | None, Row("source of the far end, the reference")] = None
    output: Annotated[Endpoint | None, Row("sink of the processed signal")] = None
    stream_delay_ms: Annotated[
        int | None,
        Row("delay from speaker to microphone", STREAM_DELAY_MIN_MS, STREAM_DELAY_MAX_MS, "ms", live=True),
    ] = None
    periods: Annotated[int, Row("length of each card's buffer in periods of 10 ms", 2, 16)] = 4
    low_latency: Annotated[bool, Row("less latency, for a little more distortion in double talk")] = False
    chime: Annotated[bool, Row("two short tones when sound flows for the first time")] = False
    report_interval_s: Annotated[float, Row("seconds between two reports in the journal", 0.1, 3600)] = 10.0
    keep_learned: Annotated[
        str, Row("where a service keeps what it has learned", choices=("ram", "disk", "never"))
    ] = "ram"
    socket: Annotated[str | None, Row("Unix socket for `apmpi monitor` and `apmpi record`")] = "auto"
    metrics: Annotated[bool, Row("the socket answers Prometheus, too")] = False

    @property
    def near_channels(self) -> tuple[int, ...]:
        """Channels of the microphone that are used, counted from 0."""
        reference = self.far_end.microphone_channels if self.far_end else ()
        every = range(1, self.microphone.channels + 1)
        used = self.microphone.use or [number for number in every if number not in reference]
        return tuple(number - 1 for number in used)

    @property
    def reference_channels(self) -> tuple[int, ...]:
        """Channels of the microphone that are the far end, counted from 0."""
        return tuple(number - 1 for number in self.far_end.microphone_channels) if self.far_end else ()


def rows(part: type[Any]) -> dict[str, Row]:
    """Return the rows of Settings or one of its parts by name."""
    return {
        entry.name: get_args(entry.type)[1] for entry in fields(part) if get_origin(entry.type) is Annotated
    }
