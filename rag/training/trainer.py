"""One training by sentence-transformers' own trainers: arguments, checkpoints, progress. Imports torch.

The trainers are told to write nothing but checkpoints, to report to no tracker and to ask no hub. A checkpoint holds the
trained parameters as safetensors; the optimizer's state beside them is read with ``weights_only`` and the whole folder is
removed when the training is finished. A training that was killed continues with its checkpoint and ends with the same
weights, bit for bit on a CPU, because the order of the batches and the random numbers are restored too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from rag.files import publish_folder
from rag.training.settings import (
    LORA_LEARNING_RATE_FACTOR,
    LORA_RANK,
    TextRow,
    TuningResult,
    TuningSettings,
    require_training_library,
)
from rag.types import OnEvent

WARMUP_SHARE = 0.1
"""Share of the steps in which the learning rate rises, as in the library's own examples."""
MAX_GRAD_NORM = 1.0
TRAINABLE_FILE = "trainable.safetensors"
LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells a process, and by what the trainer would join the others."""
REPORTED_SHARE = 0.1
"""Share of the steps, first and last, whose mean losses are reported."""


@contextlib.contextmanager
def offline_libraries(work: Path) -> Iterator[None]:
    """Keep the libraries from the network, from caches outside of ``work`` and from other processes while they train.

    Their settings and the environment are put back at the end. Where a launcher started several processes, one of them
    tunes the retriever by itself: the trainer must not wait for the others.
    """
    import datasets
    from huggingface_hub import constants

    cache = work / "datasets"
    offline_before, caches = constants.HF_HUB_OFFLINE, datasets.config.HF_DATASETS_CACHE
    progress = datasets.utils.logging.is_progress_bar_enabled()
    launched = {name: os.environ.pop(name) for name in LAUNCHER_VARIABLES if name in os.environ}
    constants.HF_HUB_OFFLINE = True
    datasets.config.HF_DATASETS_CACHE = cache
    datasets.disable_progress_bars()
    levels = {name: logging.getLogger(name).level for name in ("sentence_transformers", "transformers")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        os.environ.update(launched)
        constants.HF_HUB_OFFLINE = offline_before
        datasets.config.HF_DATASETS_CACHE = caches
        if progress:
            datasets.enable_progress_bars()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


class Progress(TrainerCallback):  # type: ignore[misc]
    """Sends an event for each step, remembers the losses, and asks for checkpoints."""

    def __init__(self, kind: str, on_event: OnEvent | None, checkpoint_seconds: float) -> None:
        """Take the name of what is trained (embedder, reranker), the handler of its events, the time between checkpoints."""
        self._checkpoint_seconds = checkpoint_seconds
        self._kind = kind
        self._on_event = on_event
        self._saved_at = time.monotonic()
        self.started_at = 0
        self.losses: list[float] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Remember the step at which this process begins."""
        self.started_at = int(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Remember the loss, and send it with the step."""
        if not logs or "loss" not in logs:
            return
        self.losses.append(float(logs["loss"]))
        if self._on_event:
            self._on_event(
                {
                    "event": "retriever.step",
                    "model": self._kind,
                    "done": int(state.global_step),
                    "total": int(state.max_steps),
                    "loss": round(self.losses[-1], 4),
                }
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Ask for a checkpoint when the last one is old enough."""
        old = time.monotonic() - self._saved_at >= self._checkpoint_seconds
        if old and state.global_step < state.max_steps:
            control.should_save = True
            self._saved_at = time.monotonic()
        return control


class _OwnCheckpoints:
    """Mixin of a sentence-transformers trainer: checkpoints of the trained parameters alone, no model cards."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        trainer: Any = self
        folder = Path(output_dir or trainer.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: value.detach().contiguous() for name, value in _trainable(trainer.model)},
            str(folder / TRAINABLE_FILE),
        )

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:
        trainer: Any = self
        stored = load_file(str(Path(checkpoint_path) / TRAINABLE_FILE))
        with torch.no_grad():
            for name, value in _trainable(trainer.model):
                value.copy_(stored[name])

    def add_model_card_callback(self, *_: Any, **__: Any) -> None:
        """Add none: a card would hold rows of the user's, and look its model up on the hub."""


def trainer_class(base: Any) -> Any:
    """Return a sentence-transformers trainer class with our checkpoints."""
    return type(f"Checkpointed{base.__name__}", (_OwnCheckpoints, base), {})


def argument_values(
    settings: TuningSettings, work: Path, device: str, rows: int, lora: bool
) -> dict[str, Any]:
    """Return the training arguments that both trainers share."""
    steps = max(1, round(settings.epochs * -(-rows // settings.batch_size)))
    rate = settings.learning_rate * (LORA_LEARNING_RATE_FACTOR if lora else 1)
    return {
        "output_dir": str(work),
        "per_device_train_batch_size": settings.batch_size,
        "num_train_epochs": settings.epochs,
        "learning_rate": rate,
        "warmup_steps": round(WARMUP_SHARE * steps),
        "max_grad_norm": MAX_GRAD_NORM,
        "bf16": device == "cuda" and torch.cuda.is_bf16_supported(),
        "use_cpu": device == "cpu",
        "seed": settings.seed,
        "data_seed": settings.seed,
        "report_to": "none",
        "save_strategy": "no",
        "save_total_limit": 1,
        "eval_strategy": "no",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
    }


def on_one_device(arguments: Any) -> Any:
    """Return training arguments that use one GPU: several would share each batch, and with it its negatives."""
    _ = arguments.device  # counts the GPUs
    arguments._n_gpu = min(1, arguments._n_gpu)
    return arguments


def attach_lora(model: torch.nn.Module, seed: int) -> Any:
    """Return a transformer with LoRA on all its linear layers; its own weights are frozen."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(
        r=LORA_RANK, lora_alpha=2 * LORA_RANK, lora_dropout=0.0, target_modules="all-linear", bias="none"
    )
    return get_peft_model(model, config)


def run_trainer(
    make: Callable[[Path, Progress], Any],
    model: torch.nn.Module,
    kind: str,
    method: str,
    pairs: int,
    cut: int,
    work: Path,
    on_event: OnEvent | None,
    checkpoint_seconds: float,
) -> TuningResult:
    """Train a model, from its last checkpoint in ``work`` if there is one, and describe the training.

    Args:
        make: returns the trainer for the folder of its checkpoints and the progress callback.
        model: what is trained.
        kind: embedder or reranker, in events.
        method: full or lora, as reported.
        pairs: pairs trained on, as reported.
        cut: texts that are longer than the model reads, as reported.
        work: the folder of the checkpoints.
        on_event: receives ``{"event": "retriever.step", "model", "done", "total", "loss"}``.
        checkpoint_seconds: time between checkpoints.
    """
    from transformers import PrinterCallback
    from transformers.trainer_utils import get_last_checkpoint

    work.mkdir(parents=True, exist_ok=True)
    progress = Progress(kind, on_event, checkpoint_seconds)
    started = time.monotonic()
    trainer = make(work, progress)
    trainer.remove_callback(PrinterCallback)
    last = get_last_checkpoint(str(work))
    model.train()
    trainer.train(resume_from_checkpoint=last)
    model.eval()
    reported = max(1, round(REPORTED_SHARE * len(progress.losses)))
    parameters = list(model.parameters())
    return TuningResult(
        method=method,
        parameters=sum(p.numel() for p in parameters),
        trained_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        pairs=pairs,
        steps=int(trainer.state.global_step),
        seconds=round(time.monotonic() - started, 1),
        resumed_at=progress.started_at,
        loss_first=_mean(progress.losses[:reported]),
        loss_last=_mean(progress.losses[-reported:]),
        cut=cut,
    )


def mix_with_original(model: torch.nn.Module, original: Mapping[str, torch.Tensor], share: float) -> None:
    """Put the mean of the weights before and after into a model, ``share`` of those before."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                value.copy_(share * original[name].to(value) + (1 - share) * value)


def parameter_count(model: torch.nn.Module) -> int:
    """Return the number of a model's parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def rows_as_dataset(columns: Mapping[str, Sequence[Any]]) -> Any:
    """Return columns as a dataset in memory."""
    require_training_library()
    from datasets import Dataset

    return Dataset.from_dict({name: list(values) for name, values in columns.items()})


def text_columns(rows: Sequence[TextRow]) -> dict[str, list[str]]:
    """Return the columns of rows for a loss with in-batch negatives: anchor, positive, negative_1, ..."""
    columns = {"anchor": [row.question for row in rows], "positive": [row.passage for row in rows]}
    for number in range(len(rows[0].negatives) if rows else 0):
        columns[f"negative_{number + 1}"] = [row.negatives[number] for row in rows]
    return columns


@contextlib.contextmanager
def published_folder(final: Path) -> Iterator[Path]:
    """Yield a new folder beside ``final`` to save a model in, and rename it into place at the end."""
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a process that was killed
    temporary.mkdir()
    try:
        yield temporary
        for name in ("README.md", ".gitattributes"):
            (temporary / name).unlink(missing_ok=True)
        if final.exists():
            shutil.rmtree(final)
        publish_folder(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _trainable(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, value) for name, value in model.named_parameters() if value.requires_grad]


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None
