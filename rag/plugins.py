"""Plug-ins: rules, methods, loaders and stores that installed packages add through entry points.

A package declares them in its ``pyproject.toml``, for instance ``[project.entry-points."tunewise.loaders"]``.
The metadata of installed packages is read once, when a name that is not built in is looked up, and nothing is
imported before that. A plug-in that cannot be used is refused with its package's name; it is never left out
silently.

:class:`PluginGroup` looks up, loads and checks the plug-ins of one group.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from importlib import metadata
from typing import Any, Generic, TypeVar

from rag.errors import BadInput

RULES = "tunewise.rules"
METHODS = "tunewise.methods"
LOADERS = "tunewise.loaders"
STORES = "tunewise.stores"
GROUPS = (RULES, METHODS, LOADERS, STORES)
PluginT = TypeVar("PluginT")


class UnusablePlugin(Exception):
    """Raised by a group's check, with the reason why the object behind an entry point cannot be used."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """One entry point of an installed package."""

    group: str
    name: str
    value: str
    """``module:object``."""
    package: str
    """Name and version of the distribution, such as ``acme-tunewise 1.2``."""

    def load(self) -> Any:
        """Import the module and return the object; raises whatever the module raises."""
        return metadata.EntryPoint(self.name, self.value, self.group).load()

    def unusable(self, reason: object) -> BadInput:
        """Return the error, on one line, that names the plug-in, its package and the reason."""
        one_line = " ".join(str(reason).split())
        message = f"the plug-in {self.name!r} ({self.group}) of {self.package} cannot be used: {one_line}"
        return BadInput(message, f"repair or remove it: pip uninstall {self.package.split()[0]}")

    def to_json(self) -> dict[str, str]:
        """Return the JSON object that ``doctor --json`` lists."""
        return asdict(self)


@cache
def declared_plugins() -> tuple[Plugin, ...]:
    """Return the plug-ins of all installed packages by group and name; nothing is imported."""
    installed = metadata.entry_points()  # once: each call reads the metadata of every package
    plugins = []
    for entry in (entry for group in GROUPS for entry in installed.select(group=group)):
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"
        plugins.append(Plugin(entry.group, entry.name, entry.value, package))
    return tuple(sorted(plugins, key=lambda plugin: (plugin.group, plugin.name, plugin.package)))


class PluginGroup(Generic[PluginT]):
    """The plug-ins of one kind, checked when they are loaded.

    Args:
        name: the entry-point group.
        builtin: the names of what is built in, which a plug-in cannot take.
        check: returns the plug-in for an entry point's name and object; raises UnusablePlugin with the
            reason.
    """

    def __init__(self, name: str, builtin: Collection[str], check: Callable[[str, Any], PluginT]) -> None:
        """Store the arguments; nothing is looked up yet."""
        self.name = name
        self.builtin = builtin
        self.check = check

    @cached_property
    def plugins(self) -> dict[str, Plugin]:
        """The entry points by name; BadInput for a name that is built in, or given by two packages."""
        by_name: dict[str, Plugin] = {}
        for plugin in (declared for declared in declared_plugins() if declared.group == self.name):
            if plugin.name in self.builtin:
                raise plugin.unusable("its name is that of a built-in")
            if plugin.name in by_name:
                raise plugin.unusable(f"{by_name[plugin.name].package} gives the same name")
            by_name[plugin.name] = plugin
        return by_name

    def load(self, name: str) -> PluginT:
        """Import and check one plug-in; KeyError for an unknown name, BadInput when it cannot be used."""
        plugin = self.plugins[name]
        try:
            return self.check(plugin.name, plugin.load())
        except UnusablePlugin as error:
            raise plugin.unusable(error) from error
        except Exception as error:  # foreign code: any error becomes a message, not a traceback
            raise plugin.unusable(f"{type(error).__name__}: {error}") from error

    @cached_property
    def all(self) -> tuple[PluginT, ...]:
        """Every plug-in of the group, by name; BadInput when one cannot be used."""
        return tuple(self.load(name) for name in self.plugins)

    def package(self, name: str) -> str:
        """Return the package that a plug-in comes from; "" for what is built in and for unknown names."""
        plugin = None if name in self.builtin else self.plugins.get(name)
        return plugin.package if plugin else ""

    def problems(self) -> list[str]:
        """Return why plug-ins of the group cannot be used, one line each."""
        try:
            names = list(self.plugins)
        except BadInput as error:
            return [str(error)]
        problems = []
        for name in names:
            try:
                self.load(name)
            except BadInput as error:
                problems.append(str(error))
        return problems
