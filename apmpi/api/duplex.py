"""Duplex: the audio thread of MediaDevices, for the microphone, the speaker, or both in step.

It serves both cards frame by frame, as the daemon's loop does: the microphone's card sets the pace, and what
is played leaves its card a fixed time after the microphone's frame of the same number came in. So the delay
that the canceller sees is known to the sample, whichever of the two was opened first, and an xrun does not
change it. While there is no microphone the speaker's own card sets the pace.

The thread never waits for the event loop: frames go there by call_soon_threadsafe, tracks come from there
through queues. A device that fails ends its own direction only; the next call that reads or plays raises the
error. Once the thread runs, Python switches between the program's threads every 0.5 ms.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time

from apmpi.api.capture import MicrophoneStream, Reference
from apmpi.api.player import SpeakerStream
from apmpi.api.track import Samples
from apmpi.cards.realtime import AUDIO_PRIORITY, SWITCH_INTERVAL_S
from apmpi.cards.sync import Follower
from apmpi.errors import EndpointError
from apmpi.units import FRAME_NS, NS_PER_S

logger = logging.getLogger("apmpi")


class Duplex:
    """The open streams and the thread that serves them, which ends when none is open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._microphone: MicrophoneStream | None = None
        self._speaker: SpeakerStream | None = None
        self._follower: Follower | None = None  # of the speaker, while both are open
        self._thread: threading.Thread | None = None

    # -- event loop

    def add(
        self, *, microphone: MicrophoneStream | None = None, speaker: SpeakerStream | None = None
    ) -> None:
        """Serves a stream from now on.

        Raises EndpointError, and closes the stream, if both directions need a resampler and there is none.
        """
        with self._lock:
            both = microphone or self._microphone, speaker or self._speaker
            if both[0] and both[1]:
                try:
                    self._follower = both[1].follower(both[0].slot)
                    if both[0].card.rate_hz != both[1].rate_hz:
                        both[0].reference = Reference(both[1].channels, both[1].rate_hz, both[0].card.rate_hz)
                except EndpointError as error:
                    for added in filter(None, (microphone, speaker)):
                        added.finish(error)
                    raise
            self._microphone, self._speaker = both
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="apmpi media devices", daemon=True)
                self._thread.start()

    # -- audio thread

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # not permitted: xruns are more likely then, and counted
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(AUDIO_PRIORITY))
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_S))
        before: tuple[MicrophoneStream | None, SpeakerStream | None] = None, None
        while (streams := self._open_streams()) is not None:
            microphone, speaker = streams
            if speaker and streams != before:  # the pace has changed
                speaker.player.follower = (microphone and self._follower) or speaker.follower(None)
                speaker.player.realign()
            before = streams
            try:
                self._frame(microphone, speaker)
            except Exception as error:  # a programming error here must be reported, not end in silence
                logger.exception("sound has stopped")
                for stream in filter(None, streams):
                    stream.finish(error)

    def _open_streams(self) -> tuple[MicrophoneStream | None, SpeakerStream | None] | None:
        """Finish the streams that are to be closed; return the others, None if the thread is to end."""
        with self._lock:
            for stream in filter(None, (self._microphone, self._speaker)):
                if stream.closing or stream.loop.is_closed():
                    stream.finish(None)
            if self._microphone and self._microphone.ended:
                self._microphone = None
            if self._speaker and self._speaker.ended:
                self._speaker = None
            if self._microphone is None and self._speaker is None:
                self._thread = None
                return None
            return self._microphone, self._speaker

    def _frame(self, microphone: MicrophoneStream | None, speaker: SpeakerStream | None) -> None:
        """Moves 10 ms in and 10 ms out."""
        if microphone is None:
            assert speaker
            now_ns = time.monotonic_ns()
            due_ns = max(speaker.next_ns, now_ns + speaker.margin_ns)
            time.sleep((due_ns - speaker.margin_ns - now_ns) / NS_PER_S)
            self._play(speaker, due_ns)
            return
        try:
            near = microphone.card.read()
        except EndpointError as error:
            microphone.finish(error)
            return
        captured_ns = microphone.card.captured_ns
        far, played_ns = None, captured_ns
        if speaker:
            if microphone.card.restarted:
                speaker.player.realign()
            now_ns = time.monotonic_ns()
            played = self._play(speaker, captured_ns + FRAME_NS + speaker.margin_ns)
            if played:
                far, played_ns = played
                microphone.set_output_delay(played_ns - now_ns)
        microphone.deliver(near, far, played_ns - captured_ns)

    def _play(self, speaker: SpeakerStream, due_ns: int) -> tuple[Samples, int] | None:
        try:
            return speaker.play(due_ns)
        except EndpointError as error:
            speaker.finish(error)
            return None
