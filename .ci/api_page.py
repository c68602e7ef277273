"""Writes the Python interface's page, out of its docstrings, into the folder given as argument."""

import sys
import warnings
from pathlib import Path

import pdoc

import apmpi

# pdoc looks into modules without asking them: what is loaded on demand is loaded now.
vars(apmpi).update({name: getattr(apmpi, name) for name in apmpi.__all__})
pdoc.render.configure(docformat="google")
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=".*may refer to either the installed Python module")
    pdoc.pdoc("apmpi", r"!apmpi\..*", output_directory=Path(sys.argv[1]))
