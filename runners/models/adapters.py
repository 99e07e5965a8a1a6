"""List adapters and other tuned weights below a folder, each described by its manifest. Imports no torch.

:func:`find_adapters` searches folders, :func:`read_adapter` reads one. There is no registry that could be out of date:
every folder is read from its own ``manifest.json``, checked against its files, and marked when it is damaged or does
not fit the base model on this machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.files import MANIFEST, check_manifest
from runners.data.teachers import RowTeacher, teachers_from_json, teachers_to_json
from runners.models.cards import CARD_FILE
from runners.models.fingerprint import read_json, template_hash, tokenizer_hash

ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_PLAIN_LORA = {"peft_type": "LORA", "bias": "none", "init_lora_weights": True}
"""Settings of a plain LoRA adapter that must have these values."""
_ANY_VALUE = frozenset(
    {
        *("r", "lora_alpha", "use_rslora", "lora_dropout", "target_modules", "task_type", "inference_mode"),
        *("base_model_name_or_path", "revision", "peft_version", "megatron_core", "qalora_group_size"),
        "auto_mapping",
    }
)
"""Those that may have any; whatever else PEFT knows must be off."""
DEFAULT_FOLDERS = ("runs",)
"""Folders that are searched when none is named."""
MAX_DEPTH = 4
"""Levels of subfolders that are searched: runs/NAME/adapters/ARM is three."""


def is_plain_adapter(settings: Mapping[str, Any]) -> bool:
    """Return whether an ``adapter_config.json`` says that scaled products B·A are added to weights, and nothing else."""
    return all(settings.get(key) == value for key, value in _PLAIN_LORA.items()) and not any(
        value for key, value in settings.items() if key not in _ANY_VALUE | _PLAIN_LORA.keys()
    )


@dataclass(frozen=True, slots=True)
class StoredAdapter:
    """One folder of tuned weights with the values of its manifest; "" or None where a value is missing."""

    folder: Path
    kind: str
    """"adapter" or "model"."""
    problem: str
    """Why it cannot be used as it is, "" when it can."""
    hint: str = ""
    """How to fix the problem, where that is known."""
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
    """Scores as written by :func:`runners.models.cards.rewrite_card`; {} when none were measured."""
    teachers: tuple[RowTeacher, ...] = ()
    """Models that wrote rows it was trained on."""

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return {
            **asdict(self),
            "folder": str(self.folder),
            "files": list(self.files),
            "teachers": teachers_to_json(self.teachers),
        }


def find_adapters(roots: Iterable[Path]) -> list[StoredAdapter]:
    """Return the tuned weights below the folders, sorted by base, then folder; BadInput for a missing folder."""
    adapters: dict[Path, StoredAdapter] = {}
    bases: dict[str, str] = {}
    for root in roots:
        if not root.is_dir():
            raise BadInput(
                f"there is no folder {root}", "name a runs folder, a run, or a folder of tuned weights"
            )
        for folder in _weight_folders(root, MAX_DEPTH):
            adapters.setdefault(folder.resolve(), read_adapter(folder, bases))
    return sorted(adapters.values(), key=lambda a: (a.base, a.fingerprint, str(a.folder)))


def read_adapter(folder: Path, bases: dict[str, str] | None = None) -> StoredAdapter:
    """Read and check one folder of tuned weights; a damaged one is marked by its ``problem``.

    Args:
        folder: an adapter or a tuned model.
        bases: cache of the fingerprints of local bases by name, so that many folders on one base hash it once.

    Raises:
        BadInput: the folder holds no tuned weights.
    """
    if not _is_weights(folder):
        raise BadInput(f"{folder} has no tuned weights", "name a folder that tunewise train or run made")
    kind = "adapter" if (folder / ADAPTER_CONFIG_FILE).is_file() else "model"
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if not (folder / MANIFEST).is_file():
        return StoredAdapter(
            folder, kind, f"it has no {MANIFEST}, so which base it fits is unknown", bytes=size
        )
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        fields = _manifest_fields(manifest, kind, read_json(folder / ADAPTER_CONFIG_FILE))
    except (BadInput, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return StoredAdapter(folder, kind, f"what it is cannot be read: {error}", bytes=size)
    base = manifest.get("base") or {}
    problem, hint = _damage(folder, kind, base)
    problem = problem or _base_mismatch(base, {} if bases is None else bases)
    return StoredAdapter(folder, kind, problem, hint, bytes=size, **fields)


def _manifest_fields(manifest: dict[str, Any], kind: str, adapter: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a manifest by field of StoredAdapter; ``adapter`` is PEFT's adapter_config.json."""
    base, data, config = (manifest.get(key) or {} for key in ("base", "data", "config"))
    base_keys = ("source", "revision", "fingerprint", "tokenizer_sha256", "template_sha256")
    return {
        "base": base.get("name", ""),
        **{key: base.get(key, "") for key in base_keys},
        "method": config.get("method", ""),
        "variant": config.get("variant", "lora") if kind == "adapter" else "",
        "rank": adapter.get("r"),
        "rows": data.get("rows"),
        "data_sha256": data.get("sha256", ""),
        "files": tuple(data.get("files", ())),
        "plan_sha256": manifest.get("plan_sha256", ""),
        "scores": manifest.get("scores", {}),
        "teachers": teachers_from_json(data.get("teachers")),
    }


def _damage(folder: Path, kind: str, base: Mapping[str, str]) -> tuple[str, str]:
    """Return what differs from the state after training (a file, tokenizer, template) and a hint, "" for nothing."""
    try:
        check_manifest(folder, kind, (CARD_FILE,))
        hashes = {"tokenizer": tokenizer_hash(folder), "template": template_hash(folder)}
    except BadInput as error:
        return error.message, error.hint
    if not base.get("fingerprint"):
        return "it does not record which base model it was trained on", ""
    for name, actual in hashes.items():
        if (expected := base.get(f"{name}_sha256")) and expected != actual:
            return f"its {name} is {actual[:16]}, it was trained with {expected[:16]}", ""
    return "", ""


def _base_mismatch(base: Mapping[str, str], bases: dict[str, str]) -> str:
    """Return how the local base of that name differs from the one trained on; "" without one or without difference."""
    from runners.models import resolve

    name = base.get("name", "")
    expected = base.get("fingerprint", "")
    if name not in bases:
        bases[name] = resolve.local_fingerprint(name)
    local = bases[name]
    return (
        f"{name} here is {local[:16]}, it was made on {expected[:16]}" if local not in ("", expected) else ""
    )


def _weight_folders(root: Path, depth: int) -> Iterator[Path]:
    """Yield the folders of tuned weights at or below ``root``, down to ``depth`` levels; symlinks are skipped."""
    if _is_weights(root):
        yield root
    elif depth:
        for folder in sorted(root.iterdir()):
            if folder.is_dir() and not folder.is_symlink() and not folder.name.startswith("."):
                yield from _weight_folders(folder, depth - 1)


def _is_weights(folder: Path) -> bool:
    """Whether a folder holds tuned weights: an adapter, or a model whose manifest names its method."""
    if (folder / ADAPTER_CONFIG_FILE).is_file():
        return True
    if not (folder / "config.json").is_file():
        return False
    try:
        return "method" in json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
