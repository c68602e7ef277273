"""Import path for image/, which is not part of the installed package: the device's code is imported from
there.
"""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[2] / "image"), str(Path(__file__).parent)]
