"""Synchronisation of one card's sound with the microphone's, in native code (native/cards/follower.h).

`Place` is the place of its sound in time, `Follower` corrects the drift between two clocks.
"""

from apmpi._cards import Follower, Place

__all__ = ["Follower", "Place"]
