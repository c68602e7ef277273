"""The package's version, written at the build (pyproject.toml)."""

__version__: str
