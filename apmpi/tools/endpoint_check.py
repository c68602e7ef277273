"""Check of the configured endpoints, by opening each as the service would."""

import contextlib
from collections.abc import Iterator

from apmpi.cards import pcm
from apmpi.cards.wav import WavSource, check_writable
from apmpi.errors import EndpointError
from apmpi.settings import Endpoint, Settings


def endpoint_states(settings: Settings) -> Iterator[tuple[str, Endpoint, str | EndpointError]]:
    """Yield key, endpoint, and a short description or the error of each configured endpoint.

    Devices stay open until the last has been tried: some cards can do either direction, but not both at once.
    """
    with contextlib.ExitStack() as opened:
        for key in ("microphone", "far_end", "speaker", "output"):
            endpoint: Endpoint | None = getattr(settings, key)
            if endpoint is None:
                continue
            try:
                found: str | EndpointError = _state(key, endpoint, settings, opened)
            except EndpointError as error:
                found = error
            yield key, endpoint, found


def _state(key: str, endpoint: Endpoint, settings: Settings, opened: contextlib.ExitStack) -> str:
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
