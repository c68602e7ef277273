"""Import paths of versions in which apmpi had no subpackages: `apmpi.wav` is `apmpi.cards.wav` today.

The same module object is found under both names, so that every class has one identity and pickles of older
frames load. A module that has been divided is a module with the names of all its parts.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED: dict[str, tuple[str, ...]] = {
    "config": ("settings", "errors", "service.yaml_reader", "service.layout"),
    "doctor": tuple(
        f"tools.{part}" for part in ["doctor", "finding", "listening", "machine_checks", "sound_checks"]
    ),
    "endpoints": ("cards.slot", "cards.sync", "cards.live", "cards.files", "cards.formats"),
    "loop": ("service.loop", "service.run"),
    "media_devices": ("api.devices", "api.track"),
    "pcm": ("cards.pcm", "cards.formats"),
    "report": ("service.report", "service.instruments", "service.systemd"),
    "socket_server": ("service.socket_server", "service.lines"),
}
"""old path -> the modules that took its place, both within apmpi"""
WINGS = {
    "api": "apm frame",
    "cards": "alsa clock downmix latency realtime replace text_file wav",
    "service": "bounded_json feed journal learned metrics protocol socket_client sound_mark",
    "tools": "acoustics cli demo endpoint_check monitor page picture process progress record",
}
MOVED |= {name: (f"{wing}.{name}",) for wing, names in WINGS.items() for name in names.split()}


class MovedFinder:
    """Finder of sys.meta_path, and loader, for the old paths; nothing is loaded before its first import."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, old = name.rpartition(".")
        loader: Any = MovedFinder()  # no Loader: importlib.abc would double the time of `import apmpi`
        return ModuleSpec(name, loader) if package == "apmpi" and old in MOVED else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Leaves the module's creation to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Puts the new module in the old one's place; of several it copies the names."""
        old = module.__name__.removeprefix("apmpi.")
        parts = [importlib.import_module(f"apmpi.{part}") for part in MOVED[old]]
        if len(parts) == 1:
            sys.modules[module.__name__] = parts[0]
        for part in parts:
            vars(module).update({name: value for name, value in vars(part).items() if name[:2] != "__"})
