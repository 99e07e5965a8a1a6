"""Take out of a text what is nobody else's business: secrets, addresses, paths, the names of user and machine."""

from __future__ import annotations

import getpass
import os
import platform
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runners.secrets import KINDS

PRIVATE = re.compile(
    r"key|token|secret|pass|pwd|credential|auth|cookie|session|proxy|index|dsn", re.IGNORECASE
)
"""Names of variables whose values are not to be shown."""
SYSTEM = ("/proc", "/sys", "/dev")
"""Places that every machine has; their names say how something was found."""
_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>)\]]+", re.IGNORECASE)
_PATH = re.compile(
    r"(?<![\w.~/])~?/(?:[^\s/\"'<>:;,()\[\]{}|]+/?)+|\b[A-Za-z]:[\\/][^\s\"'<>|]*|\\\\[^\s\"'<>|]+"
)
_SAID = re.compile(
    r"(?i)\b(authorization|bearer|basic|(?:api|access|secret|private)[_-]?key|tokens?|secrets?|passwords?|passwd|pwd)\b"
    r"(\"?\s*[:=]\s*\"?(?:bearer\s+|basic\s+)?|\s+)(?=\S*[\d\W])([^\s\"',;}]{6,})"
)
_NAMES = ("USER", "LOGNAME", "USERNAME", "SUDO_USER")
_NAME = re.compile(r"[A-Za-z][\w.-]{0,40}")
_SHORTEST = 6


class Redactor:
    """Replaces what is private by what kind of thing it was; knows this machine's environment."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """Gather what must not be told: private variables' values, home and other own folders, user and machine."""
        environ = os.environ if environ is None else environ
        secrets = [
            value for name, value in environ.items() if PRIVATE.search(name) and len(value) >= _SHORTEST
        ]
        homes = [environ.get(name, "") for name in ("HOME", "USERPROFILE")]
        places = {str(Path.home()), str(Path.cwd()), tempfile.gettempdir(), *homes} - {"", "/"}
        self._literal = {re.escape(value): "<secret>" for value in secrets}
        # With all that follows up to a mark: names of folders hold spaces.
        self._literal |= {rf"{re.escape(place)}(?:[\\/][^\n\"'<>:;,()]*)?": "<path>" for place in places}
        names = {environ.get(name, "") for name in _NAMES} | {Path.home().name, _user()}
        self._words = {name: "<user>" for name in names if len(name) > 1} | {
            node: "<machine>" for node in (platform.node(), platform.node().split(".")[0]) if len(node) > 1
        }
        self.count = 0
        """How much was taken out so far."""

    def text(self, said: str) -> str:
        """Return a text without what is private, the longest first."""
        if "\n" not in said and Path(said).is_absolute() and not said.startswith(SYSTEM):
            said, self.count = "<path>", self.count + 1
        for shape in sorted(self._literal, key=len, reverse=True):
            said = self._counted(re.compile(shape, re.IGNORECASE), self._literal[shape], said)
        for kind in KINDS:
            if kind.secret or kind.name in ("e-mail address", "IP address", "payment card"):
                said = self._counted(kind.shape, f"<{kind.name}>", said)
        said = self._counted(_SAID, r"\1\2<secret>", said)
        said = self._counted(_ADDRESS, "<address>", said)
        said = _PATH.sub(self._path, said)
        for word in sorted(self._words, key=len, reverse=True):
            whole = re.compile(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", re.IGNORECASE)
            said = self._counted(whole, self._words[word], said)
        return said

    def value(self, given: Any) -> Any:
        """Return JSON values with every text in them redacted, and every key that is no plain name."""
        if isinstance(given, str):
            return self.text(given)
        if isinstance(given, Mapping):
            return {self._key(str(key)): self._of(str(key), inner) for key, inner in given.items()}
        if isinstance(given, list | tuple):
            return [self.value(inner) for inner in given]
        return given

    def _key(self, key: str) -> str:
        return key if _NAME.fullmatch(key) else self.text(key)

    def _of(self, key: str, inner: Any) -> Any:
        if isinstance(inner, str) and inner and key.isupper() and PRIVATE.search(key):
            self.count += 1
            return "<secret>"
        return self.value(inner)

    def _counted(self, shape: re.Pattern[str], stand_in: str, said: str) -> str:
        found, number = shape.subn(stand_in, said)
        self.count += number
        return found

    def _path(self, found: re.Match[str]) -> str:
        if found[0].startswith(SYSTEM):
            return found[0]
        self.count += 1
        return "<path>"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may know no name for its number
        return ""
