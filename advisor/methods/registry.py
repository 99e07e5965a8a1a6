"""The list of all methods, simplest first: built-in ones, then those of plug-ins."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from advisor.methods.base import Method
from advisor.methods.hybrid import Hybrid
from advisor.methods.prompting import FewShot, LongContext, Prompting
from advisor.methods.rag import AgenticSearch, Rag
from advisor.methods.small import Classifier, NearestReply, Router
from advisor.methods.tuning import Full, Lora, QLora
from rag.plugins import METHODS as METHODS_GROUP
from rag.plugins import PluginGroup, UnusablePlugin

METHODS: tuple[Method, ...] = (
    *(Prompting(), FewShot(), NearestReply(), Classifier(), Router()),
    *(LongContext(), Rag(), AgenticSearch(), Lora(), QLora(), Full(), Hybrid()),
)
METHOD_BY_NAME: dict[str, Method] = {method.name: method for method in METHODS}
RESERVED_ARMS = (
    *("prompting-scored", "few-shot-scored"),
    *("naive-stack", "untuned"),
)
"""Arms of plans that are no methods; no plug-in may take their names."""


def _check_plugin(name: str, method: Any) -> Method:
    """Return an instance of a plug-in's method; UnusablePlugin when a part of it is invalid."""
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise UnusablePlugin("not a subclass of advisor.methods.base.Method")
    if method.name != name:
        raise UnusablePlugin(f"its name is {method.name!r}, not that of the entry point")
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise UnusablePlugin("its name is not lower-case letters, digits and hyphens")
    if not method.__doc__:
        raise UnusablePlugin("it has no docstring to show")
    if wrong := [degree for degree in method.serves.values() if not 0 <= degree <= 1]:
        raise UnusablePlugin(f"it serves a need to the degree {wrong[0]}, not 0 to 1")
    if missing := [part for part in ("estimate", "steps") if getattr(method, part) is getattr(Method, part)]:
        raise UnusablePlugin(f"it does not define {missing[0]}")
    return method()


METHOD_PLUGINS = PluginGroup(METHODS_GROUP, (*METHOD_BY_NAME, *RESERVED_ARMS), _check_plugin)


@cache
def all_methods() -> tuple[Method, ...]:
    """Return the built-in methods, then those of plug-ins; BadInput when a plug-in cannot be used."""
    return (*METHODS, *METHOD_PLUGINS.all)


@cache
def methods_by_name() -> dict[str, Method]:
    """Return every method by name, in the order of :func:`all_methods`."""
    return {method.name: method for method in all_methods()}
