"""Prints what must be installed before apmpi itself: build tools, dependencies and the extra named as argument.

pyproject.toml stays the only list. Installing these first lets pip build apmpi in the project's own environment,
without making and filling another one each time.
"""

import sys
import tomllib

with open("pyproject.toml", "rb") as file:
    pyproject = tomllib.load(file)
project = pyproject["project"]
requirements = pyproject["build-system"]["requires"] + project["dependencies"]
requirements += project["optional-dependencies"][sys.argv[1]]
print("\n".join(requirements))
