"""Command that prints the version ranges of the packages for build, run (with the demo's), test, agents or
assistants.

pyproject.toml is the only list of them.
"""

import sys
import tomllib
from pathlib import Path

# Builds pyalsaaudio, which has no wheels. Named here, since pip would fetch any version otherwise.
BUILD = ["setuptools>=68"]

purpose = sys.argv[1]
pyproject = tomllib.loads(Path("pyproject.toml").read_text())
project = pyproject["project"]
requirements = BUILD + pyproject["build-system"]["requires"]
if purpose in ("run", "test"):
    extras = project["optional-dependencies"]
    requirements += project["dependencies"] + extras["devices"] + extras["demo"]
if purpose == "test":
    for extra in ("journal", "web", "test"):
        requirements += project["optional-dependencies"][extra]
if purpose == "agents":
    requirements = BUILD + project["dependencies"] + project["optional-dependencies"]["test-agents"]
if purpose == "assistants":
    requirements = project["optional-dependencies"]["test-assistants"]
print("\n".join(requirements))
