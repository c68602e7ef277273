"""Exceptions that a user's mistake or a device can cause; `str()` of each is one sentence for the user."""


class ConfigError(ValueError):
    """Not a usable configuration; the sentence is `FILE:LINE: KEY: what is given, expected ...`."""


class FileError(ValueError):
    """A text file that cannot be read or is not what was expected; the sentence names the file."""


class EndpointError(RuntimeError):
    """A device or file cannot be used (any more); the sentence names it and what was expected."""


class DeviceLost(EndpointError):
    """A device has gone or stands still; it may come back."""


class CommandError(RuntimeError):
    """A command cannot do what was asked: arguments that do not fit, or something that is not installed."""


# alsa-lib, what fails to import without it or without pyalsaaudio, and a sentence about it.
ALSA_LIBRARY = "libasound.so.2"
ALSA_MODULES = ("alsaaudio", "_cards", ALSA_LIBRARY)
ALSA_MISSING = (
    "microphones and loudspeakers need alsa-lib and pyalsaaudio ({}), expected both: "
    "apt install gcc python3-dev libasound2-dev && pip install pyalsaaudio"
)
