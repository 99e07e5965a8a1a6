"""YAML from files that may come from somebody else: what aliases expand to is limited, and so is the depth.

A few hundred bytes of nested aliases stand for gigabytes. PyYAML shares what they name, but who walks the values does not.
"""

from __future__ import annotations

from typing import Any

import yaml

MAX_REPEATED = 20_000
"""Most nodes that the aliases of one text may repeat; a long text counts as one node for each line of it."""
MAX_DEPTH = 100
"""Most levels; PyYAML takes quadratic time on deep nesting."""
_LINE = 80
"""Characters of a line."""


class BoundedLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which raises :class:`yaml.YAMLError` for a text that is nested too deep or expands too much."""

    max_repeated = MAX_REPEATED

    def __init__(self, text: str) -> None:
        """Read from a text."""
        super().__init__(text)
        self._sizes: dict[int, int] = {}  # by id(): the nodes live as long as the root
        self._size = self._repeated = self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node and count what it expands to."""
        mark = self.peek_event().start_mark
        alias = self.check_event(yaml.AliasEvent)
        if alias and not self.max_repeated:
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed here", mark)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"more than {MAX_DEPTH} levels", mark)
        before = self._size
        node = super().compose_node(parent, index)
        self._depth -= 1
        if alias:
            if id(node) not in self._sizes:
                raise yaml.composer.ComposerError(None, None, "an alias inside of what it names", mark)
            self._size += self._sizes[id(node)]
            self._repeated += self._sizes[id(node)]
            if self._repeated > self.max_repeated:
                reason = f"its aliases repeat more than {self.max_repeated:,} values"
                raise yaml.composer.ComposerError(None, None, reason, mark)
            return node
        self._size += 1 + (len(node.value) // _LINE if isinstance(node, yaml.ScalarNode) else 0)
        self._sizes[id(node)] = self._size - before
        return node


class _WithoutAliases(BoundedLoader):
    max_repeated = 0


def load_yaml(text: str, aliases: bool = True) -> Any:
    """Return the values of a YAML text; None for an empty one.

    Args:
        text: the text, of one document.
        aliases: whether aliases are allowed.

    Raises:
        yaml.YAMLError: it is no YAML, or its aliases, allowed or not, expand too much, or it is nested too deep.
        ValueError: a value that YAML's types cannot hold, such as a day 31 February.
    """
    loader = (BoundedLoader if aliases else _WithoutAliases)(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
