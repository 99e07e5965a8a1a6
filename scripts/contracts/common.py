"""What the parts of the contract check share: values as they are stored and compared, and the program in a fixed
place."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Self

    from tests.support.command_server import CommandServer

ROOT = Path(__file__).resolve().parent.parent.parent
RECORDS = ROOT / "tests" / "contract"
LONGEST = 200
"""Characters of canonical JSON up to which a value is stored as it is; of a longer one its hash is."""
HASH = "sha256:"
HASH_DIGITS = 16
DIGITS = 9
"""Significant digits of the numbers in a value that is hashed."""
TOLERANCE = 1e-9
SHARED_ENV = "TUNEWISE_SHARED"
ABSENT = "(absent)"
_NONE: Any = object()


def shared_folder() -> Path | None:
    """Return the folder of public cases and data, None where the environment names none with cases."""
    named = os.environ.get(SHARED_ENV)
    return Path(named) if named and (Path(named) / "cases").is_dir() else None


def canonical(value: Any) -> str:
    """Return a value as JSON that is the same for equal values: sorted keys, numbers of :data:`DIGITS` digits."""
    return json.dumps(_rounded(value), ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value


def stored(value: Any, verbatim: bool = False) -> Any:
    """Return a value as it is stored: as JSON values, or as a hash where it is long and not wanted ``verbatim``."""
    text = canonical(value)
    if verbatim or len(text) <= LONGEST:
        return json.loads(text)
    return HASH + hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]


def same(old: Any, new: Any) -> bool:
    """Return whether two stored values are equal, numbers to :data:`TOLERANCE` relative."""
    if isinstance(old, bool) or isinstance(new, bool):
        return old is new
    if isinstance(old, int | float) and isinstance(new, int | float):
        return math.isclose(old, new, rel_tol=TOLERANCE)
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return old.keys() == new.keys() and all(same(old[key], new[key]) for key in old)
    if isinstance(old, Sequence) and isinstance(new, Sequence) and not isinstance(old, str):
        return len(old) == len(new) and all(same(a, b) for a, b in zip(old, new, strict=True))
    return bool(old == new)


@dataclass(frozen=True, slots=True)
class Difference:
    """A key whose value is another one than recorded, is missing now, or is new."""

    key: str
    old: str
    new: str


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """Return what differs between two sets of stored values, by key."""
    rows = []
    for key in sorted(old.keys() | new.keys()):
        before, now = old.get(key, _NONE), new.get(key, _NONE)
        if before is _NONE or now is _NONE or not same(before, now):
            rows.append(Difference(key, short(before), short(now)))
    return rows


def short(value: Any, most: int = 160) -> str:
    """Return a stored value as text of one line."""
    if value is _NONE:
        return ABSENT
    text = value if isinstance(value, str) else canonical(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the values of a record, None where there is none."""
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else None


def write_record(path: Path, values: Mapping[str, Any]) -> None:
    """Write values sorted by key, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = (
        f" {json.dumps(key, ensure_ascii=False)}: {json.dumps(values[key], ensure_ascii=False, sort_keys=True)}"
        for key in sorted(values)
    )
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n", "utf-8")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows as JSON lines; return the path."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def model_cache() -> Path:
    """Return where this user's fetched models are."""
    from runners.paths import cache_folder

    return cache_folder()


def fixed_environment(folder: Path) -> dict[str, str]:
    """Return an environment in which nothing of a user, a terminal or a network counts.

    Home, caches, profiles and settings are in ``folder``, which starts empty: no history, no measured speed, no model that
    was fetched before. Memory and device are said, so that the machine's do not count.
    """
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    places = {
        "HOME": home,
        "XDG_CACHE_HOME": home / "cache",
        "XDG_CONFIG_HOME": home / "config",
        "XDG_DATA_HOME": home / "data",
        "XDG_STATE_HOME": home / "state",
        "HF_HOME": home / "hub",
        "TMPDIR": folder,
        "TUNEWISE_CACHE": home / "models",
        "TUNEWISE_PROFILES": home / "profiles",
    }
    fixed = {
        **dict.fromkeys(("CONFIG", "FACTS", "HISTORY", "CALIBRATION"), ""),
        "DEVICE": "cpu",
        "DTYPE": "float32",
        "MEMORY_GIB": "4",
    }
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "PYTHONHASHSEED": "0",
        "PYTHONIOENCODING": "utf-8",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PIP_NO_INDEX": "1",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "USER": "reader",
        "LOGNAME": "reader",
        "NO_COLOR": "1",
        "COLUMNS": "300",
        **{name: str(place) for name, place in places.items()},
        **{f"TUNEWISE_{name}": value for name, value in fixed.items()},
    }


@dataclass(frozen=True, slots=True)
class Finished:
    """A command line at its end."""

    code: int
    out: str
    err: str


@dataclass
class Program:
    """The command line's own code, each call in a child of one process that has loaded it, in a temporary folder.

    A child has the environment of :func:`fixed_environment` and starts in :attr:`folder`, or in a folder of it.
    """

    models: bool = False
    """Use the models that this user has fetched before; without, there are none."""
    folder: Path = Path()
    _open: ExitStack = field(default_factory=ExitStack)
    _server: CommandServer | None = None

    def __enter__(self) -> Self:
        from tests.support.command_server import CommandServer

        base = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="contract-"))).resolve()
        self.folder = base / "work"
        self.folder.mkdir()
        self._environment = fixed_environment(base)
        if self.models:
            self._environment["TUNEWISE_CACHE"] = str(model_cache())
        self._server = self._open.enter_context(CommandServer(base, self._environment))
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def run(self, *arguments: object, cwd: Path | None = None, stdin: str = "") -> Finished:
        """Run a command line to its end; what stands for the folder of this program in its output is made ``@``."""
        assert self._server is not None
        done: subprocess.CompletedProcess[str] = self._server.run(
            *arguments, cwd=cwd or self.folder, env=self._environment, stdin=stdin
        )
        return Finished(done.returncode, self.plain(done.stdout), self.plain(done.stderr))

    def plain(self, text: str) -> str:
        """Return a text without places of this machine: ``@`` is the folder, ``REPO`` the checkout, ``PYTHON`` the prefix."""
        for place, name in (
            (self.folder, "@"),
            (self.folder.parent, "@@"),
            (ROOT, "REPO"),
            (Path(sys.prefix), "PYTHON"),
        ):
            text = text.replace(str(place), name)
        return re.sub(r"127\.0\.0\.1:(?!9/)\d+", "127.0.0.1:PORT", text)
