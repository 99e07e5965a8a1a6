"""The embedder: a local folder in one of the formats of sentence-transformers, run faithfully. Imports torch.

:class:`Embedder` turns texts into unit vectors by one of two paths: the packed encoder (:mod:`rag.embedding.packed`)
for a BERT or RoBERTa with mean or cls pooling on a CPU, and sentence-transformers (:mod:`rag.embedding.library`) for
everything else and on a GPU. When an index is built, :meth:`Embedder.checked` compares the two on its own texts; where
they disagree the library's path is taken and the index says so. On a CPU a text's vector is the same bit for bit
whatever other texts are embedded with it.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tokenizers import Tokenizer

from rag.embedding.folder import UNLIMITED_TOKENS, EmbedderFolder, Prompts
from rag.embedding.library import LibraryEncoder, best_device
from rag.embedding.low_rank import QUESTION_ADAPTER, why_not_base
from rag.embedding.packed import PackedEncoder, resolve_dtype, why_not_packed
from rag.errors import BadInput
from rag.files import sha256_file
from rag.types import OnEvent

EncodingPath = Literal["packed", "library"]
MAX_PATH_DIFFERENCE = 1e-4
"""Largest absolute difference between components of unit vectors of the two paths, in fp32, at which they agree."""
CHECKED_TEXTS = 12
"""Texts that the paths are compared on: the shortest, the longest, and lengths between them."""
LIBRARY_MARK = " by sentence-transformers, not packed"
"""End of the fingerprint of vectors made by the library because the packed path disagrees."""


class _LoadedModels:
    """The models of one folder, loaded when first used and shared by all settings of an embedder."""

    def __init__(self, folder: EmbedderFolder, dtype: torch.dtype, device: str) -> None:
        self.folder = folder
        self.dtype = dtype
        self.device = device
        self._lock = threading.Lock()  # shared by the threads of a server
        self._packed: PackedEncoder | None = None
        self._adapted: PackedEncoder | None = None
        self._library: LibraryEncoder | None = None

    def packed(self) -> PackedEncoder:
        with self._lock:
            self._packed = self._packed or PackedEncoder(self.folder, self.dtype)
            return self._packed

    def adapted(self) -> PackedEncoder:
        """Return the encoder of questions with the shipped adapter; on the CPU whatever the device, as they are few."""
        with self._lock:
            self._adapted = self._adapted or PackedEncoder(self.folder, self.dtype, changes=QUESTION_ADAPTER)
            return self._adapted

    def library(self) -> LibraryEncoder:
        with self._lock:
            self._library = self._library or LibraryEncoder(self.folder, self.dtype, self.device)
            return self._library


class Embedder:
    """Turns texts into unit vectors with a model from a local folder; nothing is fetched, no code is run."""

    def __init__(
        self,
        folder: Path | str,
        dtype: str = "float32",
        name: str = "",
        *,
        truncate_dim: int | None = None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        device: str = "auto",
        digest: Callable[[Path], str] = sha256_file,
    ) -> None:
        """Read the folder; the model is loaded when the first text is embedded.

        Args:
            folder: ``config.json``, ``model.safetensors``, ``tokenizer.json`` and, where the model has them,
                the files of sentence-transformers (modules, prompts, maximum length).
            dtype: float32, whose vectors are the same on other machines up to rounding; bfloat16; or auto (bfloat16
                where the CPU computes in it).
            name: the name shown to people; empty takes that of the folder.
            truncate_dim: dimensions kept of a vector, which is then scaled to length 1 again (Matryoshka embeddings);
                None takes the folder's setting.
            query_prompt: put before questions; None takes that of the folder, or one known for the model's name.
            document_prompt: put before documents; None as above.
            device: cpu, cuda, mps or xpu; auto takes a GPU where there is one.
            digest: returns the hex SHA-256 of a file; one that keeps hashes between starts saves reading all weights.

        Raises:
            BadInput: when the folder is not an embedder that this class can run faithfully.
        """
        self._folder = EmbedderFolder(Path(folder), digest)
        self.name = name or Path(folder).name
        self.dtype = resolve_dtype(dtype)
        self._folder.read_hashes()
        device = best_device() if device == "auto" else device
        self._models = _LoadedModels(self._folder, self.dtype, device)
        self.tokenizer = _tokenizer(self._folder.input_folder)
        self._special_tokens = len(self.tokenizer.encode("").ids)
        self.cut = 0
        """How many texts so far were longer than the model reads; the vectors of their parts were averaged."""
        self.path_reason = why_not_packed(self._folder) or ("" if device == "cpu" else f"device {device}")
        """Why the packed path is not taken; "" where it is."""
        self.path: EncodingPath = "library" if self.path_reason else "packed"
        self._forced_library = False
        self._adapts_questions = False
        self._check: dict[str, Any] = {}
        self._dimension = self._folder.dimension()
        own = self._folder.prompts(self.name)
        self._set_prompts(_replaced(own, query_prompt, document_prompt))
        self.truncate_dim = self._folder.truncate_dim
        self._set_truncation(truncate_dim)

    @property
    def folder(self) -> Path:
        """The folder that it was read from."""
        return self._folder.path

    @property
    def device(self) -> str:
        """Where it computes."""
        return self._models.device

    @property
    def adapts_questions(self) -> bool:
        """Whether questions are embedded with the shipped adapter (:mod:`rag.embedding.low_rank`).

        It was made for the vectors of all-MiniLM-L6-v2 as they are: whole, and of questions without a prompt.
        """
        return self._adapts_questions and not self.truncate_dim and not self.prompts.query

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return min(self.truncate_dim or UNLIMITED_TOKENS, self._whole_dimension)

    @property
    def fingerprint(self) -> str:
        """Everything that decides a vector: weights, tokenizer, modules, window, prompts, dimensions kept."""
        text = self._folder.fingerprint(self._whole_dimension, self.prompts)
        if self.truncate_dim:
            text += f" truncated to {self.truncate_dim}"
        if self.dtype != torch.float32:
            text += f" {str(self.dtype).removeprefix('torch.')}"
        return text + (LIBRARY_MARK if self._forced_library else "")

    def count_tokens(self, text: str) -> int:
        """Return the text's length in the model's tokens, without special tokens."""
        return len(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def encode(
        self, texts: Sequence[str], *, query: bool = False, on_event: OnEvent | None = None
    ) -> np.ndarray:
        """Return the unit vectors of texts, float32 [len(texts), dimension].

        A text longer than the model reads is cut into parts whose vectors are averaged, and counted in ``cut``.

        Args:
            texts: the texts, of any length.
            query: whether they are questions; some models put another prompt before those.
            on_event: receives ``{"event": "embed.batch", "done", "total"}``, counted in parts.
        """
        if not len(texts):
            return np.empty((0, self.dimension), dtype=np.float32)
        prompt = self.prompts.query if query else self.prompts.document
        parts, counts = self._parts(texts, prompt)
        self.cut += int((counts > 1).sum())

        def on_batch(done: int) -> None:
            if on_event:
                on_event({"event": "embed.batch", "done": done, "total": len(parts)})

        rows = [
            encoding.ids for encoding in self.tokenizer.encode_batch_fast([prompt + part for part in parts])
        ]
        if query and self.adapts_questions:
            vectors = self._models.adapted().encode(rows, on_batch)
        elif self.path == "packed":
            vectors = self._models.packed().encode(rows, on_batch)
        else:
            lengths = list(map(len, rows))
            vectors = self._models.library().encode(parts, lengths, prompt, query=query, on_batch=on_batch)
        vectors = self._truncated(vectors)
        if len(parts) == len(texts):
            return vectors
        # The mean of unit vectors, scaled to length 1, is their sum scaled to length 1; reduceat adds up the
        # rows between the first part of one text and that of the next.
        return _unit(np.add.reduceat(vectors, np.concatenate([[0], counts.cumsum()[:-1]]), axis=0))

    def configured(
        self,
        truncate_dim: int | None = None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        question_adapter: bool | None = None,
    ) -> Embedder:
        """Return this embedder with other settings; None leaves a setting as it is. The loaded model is shared."""
        other = copy.copy(self)
        if question_adapter is not None:
            other._adapts_questions = question_adapter and not why_not_base(self.folder, QUESTION_ADAPTER)
        other._set_prompts(_replaced(self.prompts, query_prompt, document_prompt))
        other._set_truncation(truncate_dim)
        return other

    def matching(self, fingerprint: str, path: str = "") -> Embedder | None:
        """Return this embedder as it was when it had a fingerprint, None when it never had.

        Tried is the library's path in place of the packed one.

        Args:
            fingerprint: as an index recorded it.
            path: the path that the index recorded, "" for none: what the library embedded (on a GPU, say) without a
                comparison of the paths is searched by the library as well.
        """
        for other in (self, self._by_library("the paths disagreed when the index was built")):
            if other.fingerprint == fingerprint:
                plain = path == "library" and other.path == "packed"
                return other._by_library("the index was built by it", marked=False) if plain else other
        return None

    def checked(self, texts: Sequence[str]) -> Embedder:
        """Return this embedder, or one that takes the library's path where the packed one disagrees with it.

        The paths are compared in float32 on the shortest and the longest of the texts and on lengths between, as
        documents all in one batch and the shortest as questions; the library is used as it is, padding included.
        The outcome is in :meth:`description`.
        """
        if self.path != "packed" or not texts:
            return self
        sample = length_sample(texts, CHECKED_TEXTS)
        with_library = LibraryEncoder(self._folder, torch.float32, "cpu", deterministic=False)
        packed = (
            PackedEncoder(self._folder, torch.float32)
            if self.dtype != torch.float32
            else self._models.packed()
        )
        difference = 0.0
        for query, chosen in ((False, sample), (True, sample[:2])):
            prompt = self.prompts.query if query else self.prompts.document
            parts, _ = self._parts(chosen, prompt)
            rows = [e.ids for e in self.tokenizer.encode_batch_fast([prompt + part for part in parts])]
            ours = packed.encode(rows, lambda done: None)
            theirs = with_library.encode_batch(parts, prompt, query=query)
            difference = max(difference, float(np.abs(ours - theirs).max()))
        from sentence_transformers import __version__ as library_version

        reason = "" if difference <= MAX_PATH_DIFFERENCE else f"differs by {difference:.1e} in a component"
        other = self._by_library(reason) if reason else copy.copy(self)
        other._check = {
            "difference": float(f"{difference:.3g}"),
            "texts": len(sample),
            "sentence_transformers": library_version,
        }
        return other

    def description(self) -> dict[str, Any]:
        """Return what an index records of its embedder, as JSON values."""
        return {
            "path": self.path,
            "path_reason": self.path_reason,
            "device": self._models.device,
            "check": self._check,
            "query_prompt": self.prompts.query,
            "document_prompt": self.prompts.document,
            "prompts_from": self.prompts.source,
            "truncate_dim": self.truncate_dim,
            "max_seq_length": self._folder.window if self._folder.window < UNLIMITED_TOKENS else None,
            "dtype": str(self.dtype).removeprefix("torch."),
            "modules": [module.kind for module in self._folder.modules],
        }

    @property
    def _whole_dimension(self) -> int:
        if self._dimension is None:
            self._dimension = self._models.library().dimension
        return self._dimension

    def _set_prompts(self, prompts: Prompts) -> None:
        """Take prompts, and with them the room that they leave for a text."""
        self.prompts = prompts
        longest = max(map(self.count_tokens, (prompts.document, prompts.query)))
        self.max_tokens = self._folder.window - self._special_tokens - longest
        """Tokens of one text that the model sees at once, without special tokens and prompt."""
        if self.max_tokens < 1:
            raise BadInput(
                f"the prompts of {self.name} leave no room for a text: it reads {self._folder.window} tokens",
                "give shorter prompts",
            )

    def _set_truncation(self, truncate_dim: int | None) -> None:
        """Keep so many dimensions; None leaves the setting as it is."""
        self.truncate_dim = truncate_dim or self.truncate_dim
        if self.truncate_dim is not None and not 1 <= self.truncate_dim <= self._whole_dimension:
            raise BadInput(
                f"truncate_dim is {self.truncate_dim}, but vectors of {self.name} have {self._whole_dimension} dimensions",
                f"give 1 to {self._whole_dimension}",
            )
        if self.truncate_dim == self._whole_dimension:
            self.truncate_dim = None

    def _by_library(self, reason: str, *, marked: bool = True) -> Embedder:
        """Return this embedder on the library's path, marked so in the fingerprint unless that is its only path."""
        other = copy.copy(self)
        if self.path == "packed":
            other.path, other.path_reason, other._forced_library = "library", reason, marked
        return other

    def _parts(self, texts: Sequence[str], prompt: str) -> tuple[list[str], np.ndarray]:
        """Return the texts cut to what the model reads beside the prompt, and the number of parts of each."""
        limit = self._folder.window - self._special_tokens - self.count_tokens(prompt)
        rows = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        parts: list[str] = []
        counts = []
        for text, row in zip(texts, rows, strict=True):
            own = [text] if len(row.ids) <= limit else self._cut(text, limit)
            parts += own
            counts.append(len(own))
        return parts, np.array(counts, dtype=np.int64)

    def _cut(self, text: str, limit: int) -> list[str]:
        """Return a text in parts of at most ``limit`` tokens, cut where a token begins."""
        offsets = self.tokenizer.encode(text, add_special_tokens=False).offsets
        if len(offsets) <= limit:
            return [text]
        starts = [0, *(offset[0] for offset in offsets[limit::limit]), len(text)]
        pieces = [text[start:end] for start, end in pairwise(starts) if start < end]
        if len(pieces) == 1:  # every token begins at the same character
            return [text[: len(text) // 2], text[len(text) // 2 :]] if len(text) > 1 else pieces
        # A part may have more tokens than it had within the text, because a word was cut.
        return [part for piece in pieces for part in self._cut(piece, limit)]

    def _truncated(self, vectors: np.ndarray) -> np.ndarray:
        """Return vectors with the first dimensions only, scaled to length 1 again; as they are without truncation."""
        return vectors if self.truncate_dim is None else _unit(vectors[:, : self.truncate_dim])


def _replaced(prompts: Prompts, query: str | None, document: str | None) -> Prompts:
    """Return prompts with those of the settings in their place; None leaves one as it is."""
    if query is None and document is None:
        return prompts
    return Prompts(
        prompts.query if query is None else query,
        prompts.document if document is None else document,
        "setting",
    )


def length_sample(texts: Sequence[str], count: int) -> list[str]:
    """Return at most ``count`` of the texts evenly by length: the shortest first, the longest last."""
    ordered = sorted(dict.fromkeys(texts), key=lambda text: (len(text), text))
    if len(ordered) <= count:
        return ordered
    return [ordered[round(n * (len(ordered) - 1) / (count - 1))] for n in range(count)]


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Return rows scaled to length 1, float32; a row of zeros stays."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(norms == 0, 1, norms), dtype=np.float32)


def _tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of a folder, with truncation and padding off."""
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises bare Exception
        raise BadInput(f"the embedder folder {folder} has no readable tokenizer.json: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
