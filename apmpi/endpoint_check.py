"""Whether an endpoint could be used as configured, found out by using it."""

import contextlib

from apmpi import pcm
from apmpi.config import Endpoint, Settings
from apmpi.wav import WavSource, check_writable


def endpoint_state(key: str, endpoint: Endpoint, settings: Settings, opened: contextlib.ExitStack) -> str:
    """What was found, in a few words; a device stays open as long as `opened`. Raises EndpointError."""
    rate_hz, channels = endpoint.sample_rate_hz or settings.sample_rate_hz, endpoint.channels
    if endpoint.microphone_channels:
        return f"by channel {', '.join(map(str, endpoint.microphone_channels))} of the microphone's card"
    is_source = key in ("microphone", "far_end")
    if endpoint.device is not None:
        kind = pcm.Capture if is_source else pcm.Playback
        card = kind(key, endpoint.device, rate_hz, channels, settings.periods)
        opened.callback(card.close)
        return f"device {endpoint.device} opens with {rate_hz} Hz, {channels} channel(s)"
    assert endpoint.file is not None
    if not is_source:
        check_writable(endpoint.file)
        return f"file {endpoint.file} can be written"
    with WavSource(endpoint.file, rate_hz, channels) as source:
        return f"file {endpoint.file} holds {source.samples / rate_hz:.1f} s, {channels} channel(s)"
