"""Whether `advisor`, `runners` and `rag` are tunewise's own, or a user's folder or module hides one of them."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

PACKAGES = ("rag", "runners", "advisor")
"""The packages that tunewise consists of, lowest first. They are beside this one in a wheel, an sdist and a checkout."""


def require_own_packages() -> None:
    """Import the three packages, or raise ImportError when another module of that name comes first.

    Their ``__init__`` files import nothing, and once imported they stay: what is put on the search path later cannot hide
    them. Places are compared after symbolic links are followed, so that a checkout, a wheel in site-packages, an archive on
    the search path and a linked folder are all recognised. For ``python -m tunewise`` the working directory, which Python
    puts first, is left out, because the installed command does not look there either.
    """
    if _started_as_command():
        _leave_out_working_directory()
    for name in PACKAGES:
        place = imported_from(name)
        if place is None:
            raise ImportError(
                f"tunewise is not whole: its package {name!r} is not beside {Path(__file__).parent}; install it again",
                name=name,
            )
        if not any(_same_place(place, folder / name) for folder in _own_folders()):
            raise ImportError(_hidden_message(name, place), name=name, path=str(place))
        import_module(name)


def imported_from(name: str) -> Path | None:
    """Return the folder, or the file of a module, that ``import name`` uses here; None when there is none.

    A module that was imported before counts, however it came into ``sys.modules``.
    """
    module = sys.modules.get(name)
    if module is not None:
        folders = list(getattr(module, "__path__", []))
        file = getattr(module, "__file__", None)
        return Path(folders[0]) if folders else Path(file or f"<{name} in sys.modules>")
    spec = find_spec(name)
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin or f"<{name}>")


def _started_as_command() -> bool:
    """Return whether this is ``python -m tunewise``: until the module is located, sys.argv[0] is "-m"."""
    given = sys.orig_argv
    named = any(
        one == "-mtunewise" or (one, other) == ("-m", "tunewise") for one, other in pairwise([*given, ""])
    )
    return sys.argv[:1] == ["-m"] and named


def _leave_out_working_directory() -> None:
    """Take the working directory off the search path, unless it is a checkout of tunewise."""
    working = Path.cwd()
    if sys.path and _same_place(Path(sys.path[0] or "."), working) and working not in _own_folders():
        del sys.path[0]


def _own_folders() -> tuple[Path, ...]:
    """Return the folders in which the packages may be: beside this one, as it is named and with links followed."""
    package = Path(__file__).parent
    return package.parent, Path(os.path.realpath(package)).parent


def _same_place(one: Path, other: Path) -> bool:
    """Return whether two paths are the same; also where they are inside an archive, so that neither is a file."""
    return os.path.normcase(os.path.realpath(one)) == os.path.normcase(os.path.realpath(other))


def _hidden_message(name: str, place: Path) -> str:
    return (
        f"another {name!r} hides the package of tunewise of that name\n"
        f"  found first: {place}\n"
        f"  tunewise's:  {_own_folders()[0] / name}\n"
        "Rename yours, or take its folder off the search path: python -P leaves out the script's folder, and PYTHONPATH may "
        "name another."
    )
