"""Train an embedder on pairs with sentence-transformers' trainer, and save it as a plain folder. Imports torch.

The loss is MultipleNegativesRankingLoss (Henderson et al. 2017; InfoNCE): a question must be nearer to its passage than to
the other passages of the batch and to its hard negatives. The batch sampler puts no passage into a batch twice.
Of a large embedder the gradients are cached, so that a batch need not fit into memory at once. Prompts, the
pooling and every other module of the folder are those that the embedder searches with.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rag.embedding.embedder import Embedder
from rag.embedding.folder import EmbedderFolder, Prompts
from rag.embedding.library import LibraryEncoder, best_device, quiet_loading
from rag.errors import BadInput
from rag.text.words import count_noun
from rag.training.settings import TextRow, TuningResult, TuningSettings, require_training_library
from rag.training.trainer import (
    Progress,
    argument_values,
    attach_lora,
    mix_with_original,
    offline_libraries,
    on_one_device,
    parameter_count,
    published_folder,
    rows_as_dataset,
    run_trainer,
    text_columns,
    trainer_class,
)
from rag.types import OnEvent


def train_embedder(
    embedder: Embedder,
    rows: Sequence[TextRow],
    settings: TuningSettings,
    out: Path,
    work: Path,
    on_event: OnEvent | None = None,
    device: str = "auto",
) -> TuningResult:
    """Train an embedder on rows and save it in a folder of sentence-transformers.

    Args:
        embedder: the one to start from, with the prompts that it searches with; it is not changed.
        rows: questions with passages and negatives, as the index embeds them.
        settings: of the training.
        out: folder of the trained embedder, written when it is whole; one that is there is replaced.
        work: folder of the checkpoints, where an interrupted training continues; removed at the end.
        on_event: receives the progress.
        device: cpu, cuda, mps or xpu; auto takes a GPU where there is one.

    Raises:
        BadInput: there are fewer than two different pairs.
        CannotRun: the extra ``retriever`` is not installed.
    """
    require_training_library()
    if len({row.passage for row in rows}) < 2:
        raise BadInput(
            f"an embedder is trained on pairs with different passages, and there are {count_noun(len(rows), 'pair')} of "
            f"{len({row.passage for row in rows})} passages",
            "give more examples, or remove the embedder step",
        )
    device = best_device() if device == "auto" else device
    folder = EmbedderFolder(embedder.folder)
    with offline_libraries(work), quiet_loading():
        model = LibraryEncoder(folder, torch.float32, device, deterministic=False).model
        method = settings.method_for(parameter_count(model))
        original = {name: value.detach().clone() for name, value in model.state_dict().items()}
        if method == "lora":
            _wrap(model, settings.seed)
        result = run_trainer(
            lambda checkpoints, progress: _trainer(
                model, rows, settings, checkpoints, progress, embedder.prompts, device, method == "lora"
            ),
            model,
            "embedder",
            method,
            len(rows),
            _count_cut(embedder, rows),
            work,
            on_event,
            settings.checkpoint_seconds,
        )
        if method == "lora":
            model[0].model = model[0].model.merge_and_unload()
        if settings.original_share:
            mix_with_original(model, original, settings.original_share)
        save_embedder(model, folder, embedder.prompts, out)
    shutil.rmtree(work, ignore_errors=True)
    return result


def _trainer(
    model: Any,
    rows: Sequence[TextRow],
    settings: TuningSettings,
    work: Path,
    progress: Progress,
    prompts: Prompts,
    device: str,
    lora: bool,
) -> Any:
    from sentence_transformers import (
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MultipleNegativesRankingLoss,
    )
    from sentence_transformers.sentence_transformer.training_args import BatchSamplers

    columns = text_columns(rows)
    values = argument_values(settings, work, device, len(rows), lora)
    put_before = {name: prompts.query if name == "anchor" else prompts.document for name in columns}
    routed: Mapping[str, str] = {name: "query" if name == "anchor" else "document" for name in columns}
    has_router = any(type(module).__name__ in ("Router", "Asym") for module in model)
    arguments = SentenceTransformerTrainingArguments(
        **values,
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        prompts={name: text for name, text in put_before.items() if text} or None,
        router_mapping=dict(routed) if has_router else {},
    )
    at_once = settings.texts_at_once(parameter_count(model))
    loss = (
        CachedMultipleNegativesRankingLoss(model, mini_batch_size=at_once)
        if at_once < settings.batch_size
        else MultipleNegativesRankingLoss(model)
    )
    return trainer_class(SentenceTransformerTrainer)(
        model=model,
        args=on_one_device(arguments),
        train_dataset=rows_as_dataset(columns),
        loss=loss,
        callbacks=[progress],
    )


def _wrap(model: Any, seed: int) -> None:
    """Put a LoRA on the transformer of an embedder, and freeze everything else; BadInput where it has none."""
    inner = getattr(model[0], "model", None)
    if not isinstance(inner, torch.nn.Module):
        raise BadInput(
            f"method lora: the embedder's first module is a {type(model[0]).__name__}, which has no transformer",
            "set method: full in the embedder step",
        )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model[0].model = attach_lora(inner, seed)


def _count_cut(embedder: Embedder, rows: Sequence[TextRow]) -> int:
    """Return how many texts are longer than the embedder reads; the library cuts them."""
    texts = [text for row in rows for text in (row.question, row.passage, *row.negatives)]
    lengths = embedder.tokenizer.encode_batch_fast(list(dict.fromkeys(texts)), add_special_tokens=False)
    return sum(len(encoding.ids) > embedder.max_tokens for encoding in lengths)


def save_embedder(model: Any, folder: EmbedderFolder, prompts: Prompts, out: Path) -> None:
    """Save an embedder so that it cuts texts, puts prompts before them and keeps dimensions as the one before did."""
    if prompts.query or prompts.document:
        model.prompts = {"query": prompts.query, "document": prompts.document}
    model.truncate_dim = folder.truncate_dim
    with published_folder(out) as temporary:
        model.save_pretrained(str(temporary), create_model_card=False)
        saved = EmbedderFolder(temporary)
        # The library writes the tokenizer anew; the same file keeps the chunks of the index as they are.
        shutil.copyfile(folder.input_folder / "tokenizer.json", saved.input_folder / "tokenizer.json")
