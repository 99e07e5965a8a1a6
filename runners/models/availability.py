"""Whether a model can be had on this machine, from where and how large it is, by name and without a request.

:func:`find_availability` answers it for any name that :func:`runners.models.resolve.resolve_model` takes;
:func:`list_catalog_models` for the models that are known by a short name and have no package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rag.errors import BadInput
from runners.catalog import models
from runners.models import hub, resolve
from runners.models.registry import find_known_model, hub_id

AvailabilityState = Literal["here", "package", "hub", "blocked", "endpoint", "unknown"]
WEIGHT_BYTES = 2
"""Bytes of one parameter in a repository of the hub: bfloat16, which all models of the catalogue are published in."""


@dataclass(frozen=True, slots=True)
class ModelAvailability:
    """Where a model would come from."""

    name: str
    state: AvailabilityState
    """``here``: on this machine; ``package``: from the package registry; ``hub``: from the model hub, which is allowed;
    ``blocked``: only on the hub, which is not allowed; ``endpoint``; ``unknown``: no such name or folder."""
    hub: str = ""
    """The id on the model hub, "" where there is none."""
    bytes: int | None = None
    """Size of the download; None where it is unknown."""
    license: str = ""

    @property
    def obtainable(self) -> bool:
        """Whether a run could use it here as things are, downloads included."""
        return self.state not in ("blocked", "unknown")

    @property
    def size(self) -> str:
        """The size as text, "" where it is unknown: ``5.2 GB``."""
        return "" if self.bytes is None else size_text(self.bytes)

    @property
    def text(self) -> str:
        """Return where it comes from: ``here``, ``5.2 GB from the hub``, ``on the hub (--allow-hub)``."""
        where = {
            "blocked": "on the hub (--allow-hub)",
            "here": "here",
            "package": "from the package registry",
            "hub": "from the hub",
            "endpoint": "an endpoint",
            "unknown": "unknown",
        }[self.state]
        return f"{self.size} {where}" if self.size and self.state in ("package", "hub") else where

    @property
    def hint(self) -> str:
        """Return how to get a model that is only on the hub."""
        return (
            f"get it with: tunewise models pull {self.name} --allow-hub; or set {hub.ALLOW_HUB_VARIABLE}=1, "
            "or give a local folder"
        )


def find_availability(name: str, allow_hub: bool = False) -> ModelAvailability:
    """Return where the model of a name would come from; makes no request and reads no weights.

    Args:
        name: a folder, a short name, a hub id or ``openai:NAME@URL``.
        allow_hub: whether the model hub may be accessed, besides its environment variable.
    """
    try:
        if resolve.parse_remote(name):
            return ModelAvailability(name, "endpoint")
        if Path(name).expanduser().exists():
            return ModelAvailability(name, "here")
    except (BadInput, OSError, ValueError, RuntimeError):
        return ModelAvailability(name, "unknown")
    known, facts, repo = find_known_model(name), models.find_model(name), hub_id(name)
    license_ = known.license if known else facts.licence if facts else ""
    size = known.download_bytes if known else approximate_bytes(facts) if facts else None
    if "/" not in repo:
        return ModelAvailability(name, "unknown")
    if (known and resolve.in_cache(known)) or _in_hub_cache(repo):
        return ModelAvailability(name, "here", repo, size, license_)
    state: AvailabilityState = "hub" if hub.hub_allowed(allow_hub) else "package" if known else "blocked"
    return ModelAvailability(name, state, repo, size, license_)


def list_catalog_models() -> list[dict[str, Any]]:
    """Return one row per model of the catalogue that has no package, smallest first, as ``tunewise models list`` prints it.

    ``state`` is ``hub`` for a model in the hub's cache on this machine, else ``absent``; ``bytes`` is approximate.
    """
    rows = []
    for facts in sorted(models.known_models(), key=lambda model: model.params_b):
        if find_known_model(facts.hub) is not None:
            continue
        state = "hub" if _in_hub_cache(facts.hub) else "absent"
        rows.append(
            {
                "name": facts.name,
                "kind": "base",
                "state": state,
                "bytes": approximate_bytes(facts),
                "source": "",
                "hub": facts.hub,
                "license": facts.licence,
                "terms": "",
            }
        )
    return rows


def with_catalog_facts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of models with what the catalogue says of each: parameters, context, kind, strength and languages.

    ``model_kind`` is base, instruct or thinking; ``strength`` a published score, or one estimated from the size. Rows of
    models that the catalogue does not hold, such as embedders, stay as they are.
    """
    full = []
    for row in rows:
        facts = models.find_model(row["hub"]) if row["hub"] else None
        known = (
            {}
            if facts is None
            else {
                "params_b": facts.params_b,
                "context": facts.context,
                "model_kind": facts.kind,
                "strength": facts.rated_strength.to_json(),
                "languages": list(facts.languages),
            }
        )
        full.append({**row, **known})
    return full


def approximate_bytes(facts: models.ModelFacts) -> int:
    """Return about how many bytes the weights of a catalogue model have on the hub."""
    return round(facts.params_b * 1e9) * WEIGHT_BYTES


def size_text(count: int) -> str:
    """Return a number of bytes as text in MB or GB, of 1000 each: ``93 MB``, ``5.2 GB``."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _in_hub_cache(repo: str) -> bool:
    """Return whether the hub's cache has a complete copy; the folder is looked for first, which is quick."""
    return hub.has_folder(repo) and hub.cached_snapshot(repo) is not None
