"""Train a reranker on pairs with sentence-transformers' CrossEncoderTrainer, and save it as a plain folder. Imports torch.

The loss is binary cross-entropy over question and passage, gold or hard negative, as the library's own rerankers were
trained. Where there is no cross-encoder to start from, one is made of the embedder's transformer with a new head.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rag.embedding.folder import EmbedderFolder, read_object
from rag.embedding.library import best_device, plain_tokenizer, quiet_loading
from rag.embedding.reranker import load_cross_encoder
from rag.errors import BadInput
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
    trainer_class,
)
from rag.types import OnEvent


def train_reranker(
    folder: Path,
    rows: Sequence[TextRow],
    settings: TuningSettings,
    out: Path,
    work: Path,
    on_event: OnEvent | None = None,
    device: str = "auto",
    new_head: bool = False,
) -> TuningResult:
    """Train a cross-encoder on rows and save it in a folder of sentence-transformers.

    Args:
        folder: the cross-encoder to start from, or with ``new_head`` an embedder.
        rows: questions with passages and at least one negative each.
        settings: of the training.
        out: folder of the trained reranker, written when it is whole; one that is there is replaced.
        work: folder of the checkpoints, where an interrupted training continues; removed at the end.
        on_event: receives the progress.
        device: cpu, cuda, mps or xpu; auto takes a GPU where there is one.
        new_head: make the cross-encoder of an embedder's transformer, with a head drawn by the seed.

    Raises:
        BadInput: rows have no negatives, or the folder is no cross-encoder with one score.
        CannotRun: the extra ``retriever`` is not installed.
    """
    require_training_library()
    _require_negatives(rows)
    device = best_device() if device == "auto" else device
    with offline_libraries(work), quiet_loading():
        torch.manual_seed(settings.seed)
        model = _new_cross_encoder(folder, device) if new_head else load_cross_encoder(folder, device=device)
        method = settings.method_for(parameter_count(model))
        original = {name: value.detach().clone() for name, value in model.state_dict().items()}
        if method == "lora":
            _wrap_transformer(model, settings.seed)
        result = run_trainer(
            lambda checkpoints, progress: _trainer(
                model, rows, settings, checkpoints, progress, device, method == "lora"
            ),
            model,
            "reranker",
            method,
            len(rows),
            0,
            work,
            on_event,
            settings.checkpoint_seconds,
        )
        if method == "lora":
            model[0].model = model[0].model.merge_and_unload()
        if settings.original_share and not new_head:
            mix_with_original(model, original, settings.original_share)
        with published_folder(out) as temporary:
            model.save_pretrained(str(temporary), create_model_card=False)
    shutil.rmtree(work, ignore_errors=True)
    return result


def _require_negatives(rows: Sequence[TextRow]) -> None:
    if not rows or not all(row.negatives for row in rows):
        raise BadInput(
            "a reranker is trained on passages that answer and passages that do not, and there are none of the second "
            "kind",
            "set hard_negatives to 1 or more in the embedder step",
        )


def _trainer(
    model: Any,
    rows: Sequence[TextRow],
    settings: TuningSettings,
    work: Path,
    progress: Progress,
    device: str,
    lora: bool,
) -> Any:
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    pairs = [
        (row.question, text, float(number == 0))
        for row in rows
        for number, text in enumerate((row.passage, *dict.fromkeys(row.negatives)))
    ]
    columns: dict[str, list[Any]] = {
        "query": [question for question, _, _ in pairs],
        "passage": [text for _, text, _ in pairs],
        "label": [label for _, _, label in pairs],
    }
    arguments = CrossEncoderTrainingArguments(**argument_values(settings, work, device, len(pairs), lora))
    weight = sum(label == 0 for _, _, label in pairs) / len(rows)
    return trainer_class(CrossEncoderTrainer)(
        model=model,
        args=on_one_device(arguments),
        train_dataset=rows_as_dataset(columns),
        loss=BinaryCrossEntropyLoss(model, pos_weight=torch.tensor(max(1.0, weight))),
        callbacks=[progress],
    )


def _wrap_transformer(model: Any, seed: int) -> None:
    """Put a LoRA on a cross-encoder's transformer; its head is trained whole, for it may be new."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    inner = model[0].model
    model[0].model = attach_lora(inner, seed)
    for name, parameter in model.named_parameters():
        if "classifier" in name and "lora_" not in name:
            parameter.requires_grad_(True)


def _new_cross_encoder(folder: Path, device: str) -> Any:
    """Return a CrossEncoder of an embedder's transformer with a new head of one score."""
    from sentence_transformers import CrossEncoder

    own = EmbedderFolder(folder)
    try:
        model = CrossEncoder(
            str(own.input_folder),
            num_labels=1,
            max_length=own.window,
            device=device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"dtype": torch.float32, "use_safetensors": True},
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise BadInput(
            f"no cross-encoder can be made of {folder}: {' '.join(str(error).split())[:200]}",
            "name a cross-encoder as the step's reranker, or remove the setting",
        ) from error
    if not (own.input_folder / "tokenizer_config.json").is_file():
        config = read_object(own.input_folder / "config.json")
        model[0].processor = plain_tokenizer(own.input_folder, own.window, config)
    return model
