"""Prints the ranges of what is installed for a purpose: build, run (with the demonstration's needs) or test.

pyproject.toml stays the only list.
"""

import sys
import tomllib
from pathlib import Path

# Builds pyalsaaudio, which has no wheels: named here, since pip would fetch any version for that.
BUILD = ["setuptools>=68"]

purpose = sys.argv[1]
pyproject = tomllib.loads(Path("pyproject.toml").read_text())
project = pyproject["project"]
requirements = BUILD + pyproject["build-system"]["requires"]
if purpose in ("run", "test"):
    requirements += project["dependencies"] + project["optional-dependencies"]["demo"]
if purpose == "test":
    requirements += project["optional-dependencies"]["test"]
print("\n".join(requirements))
