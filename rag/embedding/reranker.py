"""The reranker: a cross-encoder from a local folder, which reads question and passage together.

:func:`rerank` reorders the first hits of a search with a :class:`Scorer`; :class:`Reranker` is the
implementation, by sentence-transformers, which is imported when a model is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rag.embedding.folder import UNLIMITED_TOKENS, read_object
from rag.errors import BadInput
from rag.files import canonical_json, sha256_file, sha256_text
from rag.types import Chunk, Hit

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH_TOKENS = 4096
"""Tokens of a batch, padding included."""
SEARCH_WEIGHT = 4.0
"""What the search's score, 0 to 1, counts beside the log odds that a hit answers: see benchmarks/LOG.md."""
_HINT = "give the folder of a cross-encoder: config.json, model.safetensors, tokenizer.json"


class Scorer(Protocol):
    """The protocol of a reranker; :class:`Reranker` implements it."""

    @property
    def truncated(self) -> int:
        """How many texts so far were too long to be read whole."""

    def scores(self, question: str, texts: Sequence[str]) -> np.ndarray:
        """Return float32 [len(texts)]: how well each answers the question, higher is better."""


def rerank(
    scorer: Scorer, question: str, hits: Sequence[Hit], depth: int, text: Callable[[Chunk], str]
) -> list[Hit]:
    """Return the hits with the first ``depth`` of them in the order of the scorer's scores.

    Args:
        scorer: the reranker.
        question: the question.
        hits: best first.
        depth: how many hits are scored.
        text: returns what the scorer reads of a chunk.
    """
    first = hits[:depth]
    scores = scorer.scores(question, [text(hit.chunk) for hit in first])
    order = np.argsort(-scores, kind="stable").tolist()
    return [*(replace(first[n], rerank=float(scores[n])) for n in order), *hits[depth:]]


def with_answers(
    reader: Scorer, question: str, hits: Sequence[Hit], depth: int, text: Callable[[Chunk], str]
) -> list[Hit]:
    """Return the hits in their order, the first ``depth`` with the log odds that they answer the question.

    Args:
        reader: the answerability model (:mod:`rag.embedding.answerability`).
        question: the question.
        hits: best first.
        depth: how many hits are read.
        text: returns what is read of a chunk.
    """
    scores = reader.scores(question, [text(hit.chunk) for hit in hits[:depth]])
    read = [replace(hit, answers=float(score)) for hit, score in zip(hits[:depth], scores, strict=True)]
    return [*read, *hits[depth:]]


def by_answers(hits: Sequence[Hit]) -> list[Hit]:
    """Return hits with those that were read in front, ordered by their answers and the search's score together.

    The others keep their order.
    """
    read = [hit for hit in hits if hit.answers is not None]
    order = np.argsort([-(hit.answers or 0.0) - SEARCH_WEIGHT * hit.score for hit in read], kind="stable")
    return [*(read[n] for n in order.tolist()), *(hit for hit in hits if hit.answers is None)]


def truncation_notes(count: int) -> tuple[str, ...]:
    """Return the note for the user about passages that a reranker cut; () for none."""
    if not count:
        return ()
    return (f"{count} of the passages were longer than the reranker reads, and judged by their beginnings",)


class Reranker:
    """Scores texts for a question with a sentence-transformers CrossEncoder; nothing is fetched, no code is run."""

    def __init__(
        self,
        folder: Path | str,
        name: str = "",
        dtype: str = "float32",
        device: str = "auto",
        digest: Callable[[Path], str] = sha256_file,
    ) -> None:
        """Load the model.

        Args:
            folder: ``config.json``, ``model.safetensors``, ``tokenizer.json`` and what sentence-transformers saved
                with them: modules, activation, prompts, maximum length.
            name: the name shown to people; empty takes that of the folder.
            dtype: float32, bfloat16, or auto (bfloat16 where the CPU computes in it).
            device: cpu, cuda, mps or xpu; auto takes a GPU where there is one.
            digest: returns the hex SHA-256 of a file; one that keeps hashes between starts saves reading all weights.

        Raises:
            BadInput: when the folder holds something else than a cross-encoder with one score.
        """
        from rag.embedding.library import best_device
        from rag.embedding.packed import resolve_dtype

        folder = Path(folder)
        self.name = name or folder.name
        self.truncated = 0
        _check_folder(folder)
        self._tokenizer = _tokenizer(folder)
        self._model = load_cross_encoder(
            folder, resolve_dtype(dtype), best_device() if device == "auto" else device
        )
        if self._model.num_labels != 1:
            raise BadInput(
                f"{folder} sorts into {self._model.num_labels} classes, but a reranker gives one score", _HINT
            )
        self.max_tokens = int(self._model.max_seq_length or UNLIMITED_TOKENS)
        """Tokens of question and passage together, special tokens included; the longer one is cut."""
        self.activation = type(self._model.activation_fn).__name__
        """The function applied to the model's output, as its folder says; a sigmoid where it does not."""
        self.fingerprint = (
            f"sha256:{_weights_hash(folder, digest)} tokenizer:{sha256_file(folder / 'tokenizer.json')} "
            f"{self.max_tokens} tokens {self.activation}{_modules_text(folder)}"
        )

    def scores(self, question: str, texts: Sequence[str]) -> np.ndarray:
        """Return float32 [len(texts)], the cross-encoder's scores: higher is better.

        Texts are batched by length, the same texts always in the same batches. One too long to be read whole is cut
        and counted in ``truncated``.
        """
        lengths = [len(row) for row in self._tokenizer.encode_batch([(question, text) for text in texts])]
        self.truncated += sum(length > self.max_tokens for length in lengths)
        scores = np.empty(len(texts), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda n: (lengths[n], texts[n]))
        for batch in _batches(order, [min(length, self.max_tokens) for length in lengths]):
            pairs = [(question, texts[n]) for n in batch]
            scores[batch] = self._model.predict(pairs, batch_size=len(pairs), show_progress_bar=False)
        return scores


def _batches(order: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield row numbers in order; a batch padded to its longest row has at most BATCH_TOKENS tokens."""
    batch: list[int] = []
    for n in order:
        if batch and (len(batch) + 1) * lengths[n] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(n)
    if batch:
        yield batch


def _check_folder(folder: Path) -> None:
    """Raise BadInput when the folder is no cross-encoder that can be loaded safely."""
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (folder / name).is_file() and not (
            name == "model.safetensors" and any(folder.glob("*.safetensors"))
        ):
            raise BadInput(f"the reranker folder {folder} has no {name}", _HINT)
    config = read_object(folder / "config.json")
    if "auto_map" in config:
        raise BadInput(f"the reranker {folder} comes with its own code, which is never run", _HINT)
    architecture = str((config.get("architectures") or ["nothing"])[0])
    stored_type = str(read_object(folder / "config_sentence_transformers.json").get("model_type", ""))
    modules = read_modules(folder)
    if foreign := [name for name in modules if not name.startswith("sentence_transformers.")]:
        raise BadInput(
            f"the reranker {folder} comes with its own code ({foreign[0]}), which is never run", _HINT
        )
    # A folder saved by CrossEncoder says so; a decoder scores only with the modules and prompts saved with it.
    if stored_type != "CrossEncoder" and (modules or not architecture.endswith("ForSequenceClassification")):
        raise BadInput(f"{folder} is a {stored_type or architecture}, not a cross-encoder", _HINT)
    labels = len(config.get("id2label") or "01")
    if architecture.endswith("ForSequenceClassification") and labels != 1:
        raise BadInput(f"{folder} sorts into {labels} classes, but a reranker gives one score", _HINT)
    stored = config.get("sentence_transformers") or {}
    saved = read_object(folder / "config_sentence_transformers.json")
    for activation in (
        saved.get("activation_fn"),
        stored.get("activation_fn"),
        config.get("sbert_ce_default_activation_function"),
    ):
        if activation and not str(activation).startswith("torch.nn."):
            raise BadInput(
                f"the reranker {folder} comes with its own code ({activation}), which is never run", _HINT
            )


def read_modules(folder: Path) -> list[str]:
    """Return the types of a folder's modules, [] where there is no ``modules.json``; BadInput when it is damaged."""
    path = folder / "modules.json"
    if not path.is_file():
        return []
    try:
        return [str(entry["type"]) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{path} is damaged: {error!r}") from error


def _tokenizer(folder: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises bare Exception
        raise BadInput(f"{folder / 'tokenizer.json'} is damaged: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def load_cross_encoder(folder: Path, dtype: Any = None, device: str = "cpu") -> Any:
    """Return the CrossEncoder of a folder as the library loads it.

    Args:
        folder: of a cross-encoder.
        dtype: number type of the weights, a torch dtype; None is float32.
        device: where it computes.

    Raises:
        BadInput: when the folder holds something else, or with the library's reason when it cannot load it.
    """
    import torch

    _check_folder(folder)
    dtype = dtype or torch.float32
    from rag.embedding.library import plain_tokenizer, quiet_loading, short_reason

    with quiet_loading():
        from sentence_transformers import CrossEncoder

        try:
            model = CrossEncoder(
                str(folder),
                device=device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"dtype": dtype, "use_safetensors": True},
            )
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
            raise BadInput(
                f"the reranker {folder} cannot be loaded by sentence-transformers: {short_reason(error)}",
                _HINT,
            ) from error
    if not (folder / "tokenizer_config.json").is_file():
        config = read_object(folder / "config.json")
        model[0].processor = plain_tokenizer(folder, int(model.max_seq_length or UNLIMITED_TOKENS), config)
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions and "roberta" in str(model.config.model_type):
        # RoBERTa and its relatives number positions from the padding token on.
        model.max_seq_length = min(
            int(model.max_seq_length or positions), positions - int(model.config.pad_token_id or 0) - 1
        )
    return model.eval()


def _modules_text(folder: Path) -> str:
    """Return the part of a fingerprint about modules and prompts, "" for a plain transformers folder."""
    modules = folder / "modules.json"
    if not modules.is_file():
        return ""
    names = ["modules.json", "config_sentence_transformers.json", *_inner_files(folder)]
    hashes = [[name, sha256_file(folder / name)] for name in names if (folder / name).is_file()]
    return f" modules:{sha256_text(canonical_json(hashes))}"


def _inner_files(folder: Path) -> list[str]:
    """Return settings and weights of the module folders."""
    paths = [path for path in folder.glob("*/*") if path.suffix in (".json", ".safetensors")]
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def _weights_hash(folder: Path, digest: Callable[[Path], str]) -> str:
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return digest(files[0])
    return sha256_text("".join(map(digest, files)))
