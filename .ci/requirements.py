"""Prints what must be installed before apmpi: build tools, dependencies, and the extra given as argument.

pyproject.toml stays the only list. Installing these first lets pip build apmpi in the project's own
environment, without making and filling another one each time.
"""

import sys
import tomllib
from pathlib import Path

pyproject = tomllib.loads(Path("pyproject.toml").read_text())
project = pyproject["project"]
requirements = pyproject["build-system"]["requires"] + project["dependencies"]
requirements += project["optional-dependencies"][sys.argv[1]]
print("\n".join(requirements))
