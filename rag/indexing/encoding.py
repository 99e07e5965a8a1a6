"""The embedder of an index: its settings applied, compared with what the index records, its paths checked.

An index records in its manifest, under ``encoder``, the path that made its vectors, how the paths were compared, the
prompts, the dimensions and the longest text (see :meth:`rag.embedding.protocol.Configurable.description`).
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from rag.embedding.protocol import Configurable, Encoder
from rag.errors import BadInput
from rag.indexing import generations
from rag.settings import IndexSettings
from rag.types import OnEvent

RECORD = "encoder"
"""Key of a manifest under which the embedder is described, where it is :class:`Configurable`."""
CHECKED_PACKAGES = ("sentence-transformers", "transformers", "torch")
"""Packages whose versions a comparison of the paths holds for."""


@dataclass(frozen=True, slots=True)
class IndexEncoder:
    """An embedder ready for an index, what the index records of it, and the texts it had cut before."""

    encoder: Encoder
    record: dict[str, Any]
    cut_before: int = 0

    def remarks(self) -> Iterator[str]:
        """Yield remarks for the user: the path, prompts that are not the folder's own, texts that were cut."""
        if not isinstance(self.encoder, Configurable):
            return
        if self.record.get("path_reason") and self.record.get("check"):
            yield (
                "embedded by sentence-transformers: the packed encoder is not used for this embedder, because its "
                f"result {self.record['path_reason']} on these texts"
            )
        if str(self.record.get("prompts_from", "")).startswith("http"):
            yield (
                f"prompts of the model card ({self.record['prompts_from']}), which the embedder's folder lacks: "
                f"{self.record['query_prompt']!r} before questions, {self.record['document_prompt']!r} before passages"
            )
        if cut := self.encoder.cut - self.cut_before:
            yield (
                f"{cut} passages are longer than the {self.encoder.max_tokens} tokens that the embedder reads: "
                "each was embedded in parts, whose vectors were averaged"
            )


def configured_encoder(encoder: Encoder, settings: IndexSettings) -> Encoder:
    """Return the embedder with the embedding settings of an index; BadInput when it does not take any."""
    wanted = (settings.truncate_dim, settings.query_prompt, settings.document_prompt)
    if isinstance(encoder, Configurable):
        return encoder.configured(*wanted, settings.question_adapter)
    if wanted == (None, None, None):
        return encoder
    raise BadInput(
        f"the embedder {encoder.name} takes no prompts and no truncate_dim",
        "remove these settings, or give a sentence-transformers folder",
    )


def recorded_encoder(folder: Path | str, manifest: dict[str, Any], encoder: Encoder) -> Encoder:
    """Return the embedder as the index was built with it.

    Args:
        folder: of the index, or its URL, as messages show it.
        manifest: of its generation.
        encoder: the embedder, without the index's settings.

    Raises:
        BadInput: when its vectors cannot be compared with those of the index, saying what differs.
    """
    encoder = configured_encoder(encoder, IndexSettings.from_json(manifest["settings"]))
    record = manifest.get(RECORD) or {}
    if isinstance(encoder, Configurable):
        matching = encoder.matching(manifest["fingerprint"], str(record.get("path", "")))
        if matching is not None:
            return matching
    if manifest["fingerprint"] != encoder.fingerprint:
        raise BadInput(
            f"{folder} was built with another embedder: it has vectors of {manifest['embedder']} "
            f"({manifest['fingerprint']}), this is {encoder.name} ({encoder.fingerprint})"
            + _changed_settings(record, encoder),
            f"use {manifest['embedder']}, or rebuild the index: "
            f"tunewise index build {shlex.quote(str(folder))} --documents DOCUMENTS --embedder {encoder.name}",
        )
    return encoder


def checked_encoder(
    folder: Path, encoder: Encoder, texts: Collection[str], manifest: dict[str, Any] | None, notify: OnEvent
) -> IndexEncoder:
    """Return the embedder on the path that is right for these texts, with its record.

    The paths are compared once for an index; again when a package of :data:`CHECKED_PACKAGES` has another version.

    Args:
        folder: of the index.
        encoder: with the settings of the index.
        texts: what will be embedded.
        manifest: of the generation before, None without one.
        notify: receives ``index.encoder`` with path, reason and difference.

    Raises:
        BadInput: when the index holds vectors of the packed path, and that is found wrong now.
    """
    if not isinstance(encoder, Configurable):
        return IndexEncoder(encoder, {})
    versions = {name: metadata.version(name) for name in CHECKED_PACKAGES}
    record = (manifest or {}).get(RECORD) or {}
    same = encoder.matching(manifest["fingerprint"], str(record.get("path", ""))) if manifest else None
    if same is not None and (not texts or (record.get("check") or {}).get("versions") == versions):
        return IndexEncoder(same, record or _described(same), _cut(same))
    checked = encoder.checked(list(texts))
    description = _described(checked)
    if description["check"]:
        description["check"] |= {"versions": versions}
        event = {"event": "index.encoder", "path": description["path"], "reason": description["path_reason"]}
        notify({**event, "difference": description["check"]["difference"]})
    return IndexEncoder(checked, description, _cut(checked))


def current_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of the current generation, None where there is none that can be trusted."""
    with suppress(BadInput, OSError):
        if number := generations.current_generation(folder):
            return generations.trusted_manifest(folder, number)
    return None


def require_unchanged_path(folder: Path | str, manifest: dict[str, Any], encoder: Encoder) -> None:
    """Raise BadInput when an embedder was found to need another path than the index was built by."""
    if manifest["fingerprint"] != encoder.fingerprint:
        raise BadInput(
            f"{folder} has vectors of the packed encoder, which differ from those of sentence-transformers: "
            "its new passages could not be compared with the old ones",
            f"rebuild the index: tunewise index build {shlex.quote(str(folder))} --documents DOCUMENTS",
        )


def _described(encoder: Encoder) -> dict[str, Any]:
    return dict(encoder.description()) if isinstance(encoder, Configurable) else {}


def _cut(encoder: Encoder) -> int:
    return encoder.cut if isinstance(encoder, Configurable) else 0


def _changed_settings(record: dict[str, Any], encoder: Encoder) -> str:
    """Return the recorded settings that the embedder's folder has otherwise now, as the end of a sentence."""
    names = {
        "query_prompt": "the prompt before questions",
        "document_prompt": "the prompt before passages",
        "truncate_dim": "the dimensions kept",
        "max_seq_length": "the longest text",
        "modules": "the modules",
    }
    now = _described(encoder)
    changed = [
        f"{text} was {record[key]!r} and is {now[key]!r}"
        for key, text in names.items()
        if key in record and key in now and record[key] != now[key]
    ]
    return f"; {'; '.join(changed)}" if changed else ""
