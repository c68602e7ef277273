"""The chain in frameworks for voice agents; each module needs the package whose name it has."""
