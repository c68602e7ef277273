"""Command that writes the page of the Python interface, from its docstrings, into the folder given."""

import sys
import warnings
from pathlib import Path

import pdoc

import apmpi

# pdoc reads a module's namespace, which lacks names that are loaded on first use: they are loaded here.
vars(apmpi).update({name: getattr(apmpi, name) for name in apmpi.__all__})
pdoc.render.configure(docformat="google")
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=".*may refer to either the installed Python module")
    pdoc.pdoc("apmpi", r"!apmpi\..*", output_directory=Path(sys.argv[1]))
