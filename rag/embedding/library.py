"""Embedding by sentence-transformers, the reference path: every module of a folder is honoured. Imports torch.

sentence_transformers itself is imported when a model is loaded: that takes seconds, and the packed encoder
(:mod:`rag.embedding.packed`) does without.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rag.embedding.folder import EmbedderFolder
from rag.embedding.packed import BATCH_TOKENS, length_batches, make_deterministic
from rag.errors import BadInput

GPU_BATCH_TOKENS = 16_384
"""Tokens of a batch on a GPU, padding left out."""
STATIC_BATCH_TEXTS = 1024
"""Texts of a batch where nothing is padded: a static embedding sums up each text by itself."""


def best_device() -> str:
    """Return the device that embeds: cuda, mps or xpu where there is one, in the order of sentence-transformers.

    ``TUNEWISE_DEVICE`` (the setting ``device``) names one, as for the models that answer.
    """
    wanted = os.environ.get("TUNEWISE_DEVICE", "").strip().lower() or "auto"
    if wanted != "auto":
        return "cuda" if wanted == "rocm" else wanted  # torch drives AMD GPUs under the name cuda
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "xpu" if hasattr(torch, "xpu") and torch.xpu.is_available() else "cpu"


class LibraryEncoder:
    """A :class:`sentence_transformers.SentenceTransformer` with fixed batches.

    On a CPU a batch holds texts of one length, and products are padded to sizes that agree bit for bit, so that a
    text's vector does not depend on the others; on a GPU texts are sorted by length and padded.
    """

    def __init__(
        self, folder: EmbedderFolder, dtype: torch.dtype, device: str, *, deterministic: bool = True
    ) -> None:
        """Load the folder.

        Args:
            folder: the embedder's folder.
            dtype: number type of the weights.
            device: where the model computes.
            deterministic: pad products on a CPU; without, the model is just as the library loads it.
        """
        self._device = device
        self._path = folder.path
        self._static = all(module.kind != "Transformer" for module in folder.modules[:1]) and bool(
            folder.modules
        )
        self.model = _load(folder, dtype, device)
        if deterministic and device == "cpu":
            make_deterministic(self.model)

    @property
    def dimension(self) -> int:
        """Length of a whole vector."""
        return int(self.model.get_embedding_dimension())

    def encode(
        self,
        texts: Sequence[str],
        lengths: Sequence[int],
        prompt: str,
        *,
        query: bool,
        on_batch: Callable[[int], None],
    ) -> np.ndarray:
        """Return the unit vectors of texts, float32 [texts, dimension].

        Args:
            texts: without the prompt, none longer than the model reads.
            lengths: tokens of each, with prompt and special tokens.
            prompt: put before each text.
            query: whether they are questions: a router sends those another way.
            on_batch: receives the number of texts done so far.
        """
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        done = 0
        for batch in self._batches(texts, lengths):
            vectors[batch] = self.encode_batch([texts[n] for n in batch], prompt, query=query)
            done += len(batch)
            on_batch(done)
        return vectors

    def encode_batch(self, texts: Sequence[str], prompt: str, *, query: bool) -> np.ndarray:
        """Return the unit vectors of one batch of texts, as the library pads and computes it."""
        try:
            encoded = self.model.encode(
                list(texts),
                prompt=prompt,
                task="query" if query else "document",
                batch_size=len(texts),
                show_progress_bar=False,
                convert_to_tensor=True,
                normalize_embeddings=True,
            )
        except (IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise BadInput(
                f"sentence-transformers cannot embed with {self._path}: {short_reason(error)}",
                "check the folder with SentenceTransformer(FOLDER).encode, or give another embedder",
            ) from error
        return np.asarray(encoded.float().cpu().numpy(), dtype=np.float32)

    def _batches(self, texts: Sequence[str], lengths: Sequence[int]) -> Iterator[list[int]]:
        if self._static:
            yield from (
                list(range(start, min(start + STATIC_BATCH_TEXTS, len(texts))))
                for start in range(0, len(texts), STATIC_BATCH_TEXTS)
            )
            return
        # Equal texts in another order make the same batches.
        # A text without any token has nothing to run: its vector stays 0.
        order = sorted((n for n in range(len(texts)) if lengths[n]), key=lambda n: (lengths[n], texts[n]))
        on_cpu = self._device == "cpu"
        tokens = BATCH_TOKENS if on_cpu else GPU_BATCH_TOKENS
        yield from length_batches(order, lengths, mixed=not on_cpu, batch_tokens=tokens)


def _load(folder: EmbedderFolder, dtype: torch.dtype, device: str) -> Any:
    """Return the SentenceTransformer of a folder; BadInput with the library's reason when it cannot load it."""
    with quiet_loading():
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.base.modules import Transformer
        from sentence_transformers.sentence_transformer.modules import Pooling

        options: dict[str, Any] = {"device": device, "local_files_only": True, "trust_remote_code": False}
        model_options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
        try:
            if folder.modules:
                model = SentenceTransformer(str(folder.path), model_kwargs=model_options, **options)
            else:
                # A plain transformers folder: what its Pooling folder says, else the mean over tokens.
                files = {"local_files_only": True, "trust_remote_code": False}
                transformer = Transformer(
                    str(folder.path),
                    model_kwargs={**model_options, **files},
                    processor_kwargs=dict(files),
                    config_kwargs=dict(files),
                )
                pooling = Pooling(transformer.get_embedding_dimension(), folder.pooling_modes)
                model = SentenceTransformer(modules=[transformer, pooling], device=device)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, AttributeError) as error:
            raise BadInput(
                f"the embedder folder {folder.path} cannot be loaded by sentence-transformers: {short_reason(error)}",
                "give another embedder, or save this one again with SentenceTransformer.save_pretrained",
            ) from error
    if not (folder.input_folder / "tokenizer_config.json").is_file() and isinstance(model[0], Transformer):
        model[0].processor = plain_tokenizer(folder.input_folder, folder.window, folder.model_config)
    # Dimensions are cut after pooling of windows, and the window is that of the folder: see Embedder.
    model.truncate_dim = None
    return model.eval()


def plain_tokenizer(folder: Path, window: int, config: Mapping[str, Any]) -> Any:
    """Return the tokenizer of a folder that holds ``tokenizer.json`` alone.

    transformers would take the class of the model's type, which adds tokens that the model has no weights for.

    Args:
        folder: the folder.
        window: most tokens of a text.
        config: the model's ``config.json``.
    """
    from transformers import PreTrainedTokenizerFast

    names = ["input_ids", "attention_mask"]
    if int(config.get("type_vocab_size") or 0) > 1:
        names.insert(1, "token_type_ids")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), model_max_length=window, model_input_names=names
    )
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(int(config.get("pad_token_id") or 0))
    return tokenizer


def short_reason(error: Exception) -> str:
    """Return an error's text on one line, shortened."""
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Hide the progress bars and warnings that transformers prints while sentence-transformers is loaded."""
    from transformers.utils import logging

    # sentence-transformers imports bitsandbytes, which says that a kernel for 4-bit weights is missing.
    getLogger("bitsandbytes.backends.cpu.ops").setLevel(ERROR)
    progress_bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if progress_bars:
            logging.enable_progress_bar()
