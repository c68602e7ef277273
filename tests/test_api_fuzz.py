"""Any frames, flags and calls in any order: a wrong call is a RuntimeError or ValueError, a right one works,
nothing crashes.
"""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from apmpi import AudioFrame, AudioProcessingModule

RATES_HZ = (8000, 16000, 32000, 48000)
GUARD = bytes(range(64))

any_flags = st.fixed_dictionaries(
    {},
    optional={
        name: st.booleans()
        for name in ("echo_cancellation", "noise_suppression", "high_pass_filter", "auto_gain_control")
    },
)
kinds = st.sampled_from(["zeros", "noise", "full scale", "last bit", "impulse", "low", "high"])


def samples(kind: str, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.zeros(count, np.int16)
    if kind == "noise":
        x[:] = rng.normal(0.0, 6000.0, count).clip(-32768, 32767)
    elif kind == "full scale":
        x[:] = np.where(rng.integers(0, 2, count), 32767, -32768)
    elif kind == "last bit":
        x[:] = rng.integers(-1, 2, count)
    elif kind == "impulse":
        x[count // 2 : count // 2 + 1] = 32767
    elif kind in ("low", "high"):
        x[:] = -32768 if kind == "low" else 32767
    return x


class AnyOrder(RuleBasedStateMachine):
    @initialize(flags=any_flags)
    def start(self, flags: dict[str, bool]) -> None:
        self.apm = AudioProcessingModule(**flags)
        self.shape: tuple[int, int] | None = None  # of the microphone
        self.rate_hz: int | None = None  # of the first call

    def frames(
        self, rate_hz: int, channels: int, kind: str, seed: int, offset: int
    ) -> tuple[bytearray, AudioFrame]:
        body = samples(kind, rate_hz // 100 * channels, seed).tobytes()
        buffer = bytearray(GUARD[:offset] + body + GUARD)
        return buffer, AudioFrame(memoryview(buffer)[offset:], rate_hz, channels, rate_hz // 100)

    @rule(
        rate_hz=st.sampled_from(RATES_HZ),
        channels=st.integers(1, 8),
        kind=kinds,
        seed=st.integers(0, 99),
        offset=st.integers(0, 5),
        blocks=st.integers(1, 20),
    )
    def microphone(self, rate_hz: int, channels: int, kind: str, seed: int, offset: int, blocks: int) -> None:
        for block in range(blocks):
            buffer, frame = self.frames(rate_hz, channels, kind, seed + block, offset)
            self.apm.process_stream(frame)
            assert buffer[:offset] == GUARD[:offset] and buffer[-len(GUARD) :] == GUARD
        self.shape, self.rate_hz = (rate_hz, channels), rate_hz
        assert 0.0 < self.apm.latency_ms <= 10.0

    @rule(
        rate_hz=st.sampled_from(RATES_HZ),
        channels=st.integers(1, 8),
        kind=kinds,
        seed=st.integers(0, 99),
        offset=st.integers(0, 5),
        blocks=st.integers(1, 90),
    )
    def far_end(self, rate_hz: int, channels: int, kind: str, seed: int, offset: int, blocks: int) -> None:
        for block in range(blocks):
            buffer, frame = self.frames(rate_hz, channels, kind, seed + block, offset)
            before = bytes(buffer)
            if self.rate_hz not in (None, rate_hz):
                try:
                    self.apm.process_reverse_stream(frame)
                except RuntimeError as error:
                    assert str(rate_hz) in str(error) and str(self.rate_hz) in str(error)
                    return
                raise AssertionError("a far end at another rate was taken")
            self.apm.process_reverse_stream(frame)
            self.rate_hz = rate_hz
            assert buffer == before

    @rule(pairs=st.integers(1, 40), kind=kinds, far_kind=kinds, seed=st.integers(0, 99))
    def conversation(self, pairs: int, kind: str, far_kind: str, seed: int) -> None:
        """A sequence of calls that mostly keeps the running shape, so that states become old."""
        rate_hz, channels = self.shape or (16000, 1)
        if self.rate_hz not in (None, rate_hz):
            return
        for block in range(pairs):
            self.apm.process_reverse_stream(self.frames(rate_hz, 1, far_kind, seed + block, 0)[1])
            self.apm.process_stream(self.frames(rate_hz, channels, kind, seed + 1000 + block, 0)[1])
        self.shape, self.rate_hz = (rate_hz, channels), rate_hz

    @rule(
        rate_hz=st.one_of(st.sampled_from(RATES_HZ), st.integers(-(2**40), 2**40)),
        channels=st.integers(-3, 12),
        count=st.one_of(st.sampled_from([79, 80, 160, 320, 480]), st.integers(-5, 2000)),
        size=st.integers(0, 20000),
        reverse=st.booleans(),
    )
    def any_frame(self, rate_hz: int, channels: int, count: int, size: int, reverse: bool) -> None:
        if rate_hz in RATES_HZ and 1 <= channels <= 8 and count == rate_hz // 100:
            return  # that one is right, and another rule's
        try:
            frame = AudioFrame(bytearray(size), rate_hz, channels, count)
            (self.apm.process_reverse_stream if reverse else self.apm.process_stream)(frame)
        except (RuntimeError, ValueError):
            return
        raise AssertionError("a wrong frame was taken")

    @rule(flags=any_flags)
    def configure(self, flags: dict[str, bool]) -> None:
        self.apm.configure(**flags)

    @rule(delay_ms=st.integers(-(2**70), 2**70) | st.integers(-2, 502))
    def delay(self, delay_ms: int) -> None:
        try:
            self.apm.set_stream_delay_ms(delay_ms)
        except RuntimeError:
            assert not 0 <= delay_ms <= 500
        else:
            assert 0 <= delay_ms <= 500

    @rule()
    def reset(self) -> None:
        self.apm.reset()

    @invariant()
    def figures_are_numbers(self) -> None:
        if not hasattr(self, "apm"):
            return
        stats = self.apm.stats()
        for name in stats.__slots__:
            assert np.isfinite(getattr(stats, name)), name
        assert -1.0 <= stats.delay_ms <= 1000.0
        assert 0.0 <= stats.delay_confidence <= 1.0 and 0.0 <= stats.speech_probability <= 1.0
        assert -20.0 <= stats.agc_gain_db <= 32.0


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
