"""A LiveKit room on this computer's microphone and loudspeaker: publishes the one without echo of the other.

LIVEKIT_URL=wss://... LIVEKIT_TOKEN=... python livekit_room.py [SECONDS]        (needs apmpi[livekit])
"""

import asyncio
import os
import sys

from livekit.rtc import LocalAudioTrack, RemoteParticipant, RemoteTrackPublication, Room, Track, TrackKind

from apmpi import MediaDevices


async def main(url: str, token: str, seconds: float) -> None:
    room = Room()
    devices = MediaDevices()
    player = devices.open_output()
    await player.start()
    capture = devices.open_input()  # cancels what the player plays, suppresses noise, evens out the level
    tasks = set()

    @room.on("track_subscribed")  # type: ignore[untyped-decorator, unused-ignore]
    def play(track: Track, publication: RemoteTrackPublication, participant: RemoteParticipant) -> None:
        if track.kind == TrackKind.KIND_AUDIO:
            tasks.add(asyncio.create_task(player.add_track(track)))

    @room.on("track_unsubscribed")  # type: ignore[untyped-decorator, unused-ignore]
    def stop(track: Track, publication: RemoteTrackPublication, participant: RemoteParticipant) -> None:
        tasks.add(asyncio.create_task(player.remove_track(track)))

    try:
        await room.connect(url, token)
        track = LocalAudioTrack.create_audio_track("microphone", capture.source)
        await room.local_participant.publish_track(track)
        # Ends when the time is over, or with an error if a device fails.
        assert player.task
        await asyncio.wait({capture.task, player.task}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in (capture.task, player.task):
            if task.done():
                task.result()
    finally:
        await capture.aclose()
        await player.aclose()
        await room.disconnect()


if __name__ == "__main__":
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3600.0
    asyncio.run(main(os.environ["LIVEKIT_URL"], os.environ["LIVEKIT_TOKEN"], seconds))
