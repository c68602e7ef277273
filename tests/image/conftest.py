"""image/ is no part of the installed package: what the device runs is imported from where it lies."""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[2] / "image"), str(Path(__file__).parent)]
