"""The adapter store: tuned weights of several runs on one base, side by side, each known by its manifest. Light.

There is no registry to fall out of step: the folders are the store. Whatever is found is read from its own
``manifest.json``, checked against its files, and marked when it is damaged or does not fit what is here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.files import MANIFEST, check_manifest
from runners.models.cards import CARD_FILE
from runners.models.fingerprint import read_json, template_hash, tokenizer_hash

ADAPTER_CONFIG_FILE = "adapter_config.json"
DEFAULT_FOLDERS = ("runs",)
"""Where to look when no place is named."""
MAX_DEPTH = 4
"""Folders below a place that are looked into: runs/NAME/adapters/ARM is three."""


@dataclass(frozen=True, slots=True)
class StoredAdapter:
    """One folder of tuned weights and what its manifest says; "" or None where it does not say."""

    folder: Path
    kind: str
    """"adapter" or "model"."""
    problem: str
    """Why it cannot be used as it is, "" when it can."""
    hint: str = ""
    """What to do about the problem, where that is known."""
    base: str = ""
    source: str = ""
    revision: str = ""
    fingerprint: str = ""
    tokenizer_sha256: str = ""
    template_sha256: str = ""
    method: str = ""
    variant: str = ""
    rank: int | None = None
    rows: int | None = None
    data_sha256: str = ""
    files: tuple[str, ...] = ()
    plan_sha256: str = ""
    bytes: int = 0
    scores: Mapping[str, Any] = field(default_factory=dict)
    """As :func:`runners.models.cards.rewrite_card` took them; {} when it was never measured."""

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {**asdict(self), "folder": str(self.folder), "files": list(self.files)}


def find_adapters(places: Iterable[Path]) -> list[StoredAdapter]:
    """Return the tuned weights below the places, in order of base, then folder; BadInput for a missing place."""
    found: dict[Path, StoredAdapter] = {}
    bases: dict[str, str] = {}
    for place in places:
        if not place.is_dir():
            raise BadInput(
                f"there is no folder {place}", "name a runs folder, a run, or a folder of tuned weights"
            )
        for folder in _folders(place, MAX_DEPTH):
            found.setdefault(folder.resolve(), read_adapter(folder, bases))
    return sorted(found.values(), key=lambda s: (s.base, s.fingerprint, str(s.folder)))


def read_adapter(folder: Path, bases: dict[str, str] | None = None) -> StoredAdapter:
    """Read and check one folder of tuned weights; BadInput when it is none, a damaged one is marked.

    ``bases`` remembers the fingerprints of bases by name, so that many folders on one base hash it once.
    """
    if not _is_weights(folder):
        raise BadInput(f"{folder} holds no tuned weights", "name a folder that tunewise train or run made")
    kind = "adapter" if (folder / ADAPTER_CONFIG_FILE).is_file() else "model"
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if not (folder / MANIFEST).is_file():
        return StoredAdapter(
            folder, kind, f"it has no {MANIFEST}, so which base it fits is unknown", bytes=size
        )
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        told = _told(manifest, kind, read_json(folder / ADAPTER_CONFIG_FILE))
    except (BadInput, OSError, ValueError, TypeError, AttributeError) as error:
        return StoredAdapter(folder, kind, f"what it is cannot be read: {error}", bytes=size)
    base = manifest.get("base") or {}
    problem, hint = _damage(folder, kind, base)
    problem = problem or _elsewhere(base, {} if bases is None else bases)
    return StoredAdapter(folder, kind, problem, hint, bytes=size, **told)


def _told(manifest: dict[str, Any], kind: str, adapter: dict[str, Any]) -> dict[str, Any]:
    """Return what a manifest says, by Stored field."""
    base, data, config = (manifest.get(key) or {} for key in ("base", "data", "config"))
    of_base = ("source", "revision", "fingerprint", "tokenizer_sha256", "template_sha256")
    return {
        "base": base.get("name", ""),
        **{key: base.get(key, "") for key in of_base},
        "method": config.get("method", ""),
        "variant": config.get("variant", "lora") if kind == "adapter" else "",
        "rank": adapter.get("r"),
        "rows": data.get("rows"),
        "data_sha256": data.get("sha256", ""),
        "files": tuple(data.get("files", ())),
        "plan_sha256": manifest.get("plan_sha256", ""),
        "scores": manifest.get("scores", {}),
    }


def _damage(folder: Path, kind: str, base: Mapping[str, str]) -> tuple[str, str]:
    """Return what in the folder is not as it was trained (a file, the tokenizer, the template) and a hint, or ""."""
    try:
        check_manifest(folder, kind, (CARD_FILE,))
        here = {"tokenizer": tokenizer_hash(folder), "template": template_hash(folder)}
    except BadInput as damage:
        return damage.message, damage.hint
    if not base.get("fingerprint"):
        return "it does not say which base it was made on", ""
    for name, found in here.items():
        if (made := base.get(f"{name}_sha256")) and made != found:
            return f"its {name} is {found[:16]}, it was trained with {made[:16]}", ""
    return "", ""


def _elsewhere(base: Mapping[str, str], bases: dict[str, str]) -> str:
    """Return how the base of that name here differs from the one trained on; "" where there is none or no difference."""
    from runners.models import resolve

    name, made = base.get("name", ""), base.get("fingerprint", "")
    if name not in bases:
        bases[name] = resolve.local_fingerprint(name)
    found = bases[name]
    return f"{name} here is {found[:16]}, it was made on {made[:16]}" if found not in ("", made) else ""


def _folders(place: Path, depth: int) -> Iterator[Path]:
    if _is_weights(place):
        yield place
    elif depth:
        for folder in sorted(place.iterdir()):
            if folder.is_dir() and not folder.is_symlink() and not folder.name.startswith("."):
                yield from _folders(folder, depth - 1)


def _is_weights(folder: Path) -> bool:
    """Say whether a folder is tuned weights: an adapter, or a model whose manifest names its method."""
    if (folder / ADAPTER_CONFIG_FILE).is_file():
        return True
    if not (folder / "config.json").is_file():
        return False
    try:
        return "method" in json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
