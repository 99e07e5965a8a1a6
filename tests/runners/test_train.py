"""Training with fit: learning, reproducibility, resuming, stopping, and reloading the result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import GenerationMixin

from rag.errors import BadInput, UsageProblem
from rag.files import writer_lock
from runners.data.examples import Example, load_examples
from runners.inference.weights import load_base, load_for_inference
from runners.models.resolve import Model
from runners.paths import work_folder
from runners.plan.train_config import TUNING_METHODS, TrainConfig
from runners.train import _identity, fit
from runners.training import defaults

CONFIG = TrainConfig(epochs=3.0, rank=4, alpha=8.0, learning_rate=1e-2, batch_tokens=400, checkpoint_steps=2)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tuned weights of a folder."""
    name = "adapter_model.safetensors" if (folder / "adapter_config.json").exists() else "model.safetensors"
    return load_file(folder / name)


def same(a: Path, b: Path) -> bool:
    """Return whether two folders hold bit-identical weights."""
    one, two = weights(a), weights(b)
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


class Stop:
    """An event sink that interrupts after a number of steps, as Ctrl-C would."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.events: list[dict[str, Any]] = []

    def __call__(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        if event["event"] == "train.step" and event["step"] == self.after:
            raise KeyboardInterrupt

    def named(self, name: str) -> list[dict[str, Any]]:
        """Return the events of one name."""
        return [e for e in self.events if e["event"] == name]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_fit_lowers_loss_emits_events_and_leaves_base_unchanged(
    tiny: Model, examples: tuple[Example, ...], tmp_path: Path, method: str
) -> None:
    before = (tiny.folder / "model.safetensors").read_bytes()
    sink = Stop(after=10**9)
    result = fit(examples, CONFIG.replace(method=method), tiny, tmp_path / "out", on_event=sink)
    assert result.last_loss < result.first_loss - 0.3
    assert (tiny.folder / "model.safetensors").read_bytes() == before
    steps = sink.named("train.step")
    assert [e["step"] for e in steps] == list(range(1, result.steps + 1))
    assert steps[-1]["eta_seconds"] == 0
    assert [e["tokens"] for e in steps] == sorted(e["tokens"] for e in steps)
    assert sink.events[0]["event"] == "train.start"
    assert sink.events[-1] == {"event": "train.end", **result.to_json()}
    assert not (tmp_path / ".out.work").exists()


def test_lora_changes_projection_layers_only(
    tiny: Model, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    fit(examples, CONFIG, tiny, tmp_path / "out")
    bare = load_base(tiny, "float32").state_dict()
    model, _ = load_for_inference(tiny, tmp_path / "out", "float32")
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, bare[k])}
    assert changed
    assert all("proj" in name for name in changed)


def test_weights_are_reproducible_by_seed(tiny: Model, examples: tuple[Example, ...], tmp_path: Path) -> None:
    short = CONFIG.replace(epochs=1.0, dropout=0.1)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fit(examples, short.replace(seed=seed), tiny, tmp_path / name)
    assert same(tmp_path / "a", tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "a" / "adapter_config.json").read_bytes() == (
        tmp_path / "b" / "adapter_config.json"
    ).read_bytes()


@pytest.mark.parametrize("method", ["lora", "full"])
def test_interrupted_run_resumes_to_identical_weights(
    tiny: Model, examples: tuple[Example, ...], tmp_path: Path, method: str
) -> None:
    config = CONFIG.replace(method=method, dropout=0.1)
    fit(examples, config, tiny, tmp_path / "whole", valid=examples[:4])
    sink = Stop(after=5)
    with pytest.raises(KeyboardInterrupt):
        fit(examples, config, tiny, tmp_path / "parts", valid=examples[:4], on_event=sink)
    assert sink.named("train.checkpoint")[-1]["step"] == 5
    assert not (tmp_path / "parts").exists()
    again = Stop(after=10**9)
    result = fit(examples, config, tiny, tmp_path / "parts", valid=examples[:4], on_event=again, resume=True)
    assert again.named("train.start")[0]["from_step"] == 5
    assert again.named("train.step")[0]["step"] == 6
    assert same(tmp_path / "whole", tmp_path / "parts")
    assert result.tokens == again.named("train.step")[-1]["tokens"]


def test_plain_kernels_use_reference_path_also_on_resume(
    tiny: Model, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    config = CONFIG.replace(epochs=2.0, kernels="plain")
    fit(examples, config, tiny, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(examples, config, tiny, tmp_path / "parts", on_event=Stop(after=3))
    resumed, other = Stop(after=10**9), Stop(after=10**9)
    result = fit(examples, config, tiny, tmp_path / "parts", on_event=resumed, resume=True)
    started = resumed.named("train.start")[0]
    assert (started["from_step"], started["kernels"], started["path"]) == (3, "plain", "plain")
    assert started["compiling"] == "torch.compile is off: kernels plain: asked for"
    assert result.path == "plain"
    assert "kernels plain: asked for" in result.notes
    assert same(tmp_path / "whole", tmp_path / "parts")
    manifest = json.loads((tmp_path / "parts" / "manifest.json").read_text("utf-8"))
    assert manifest["config"]["kernels"] == "plain"
    again = fit(
        examples, config.replace(kernels="auto"), tiny, tmp_path / "parts", on_event=other, resume=True
    )
    assert again.path == "fast"
    assert "kernels was plain, is auto" in other.named("train.restart")[0]["reason"]


def test_identity_of_runs_without_kernels_setting_is_unchanged() -> None:
    """The digest is the one that this configuration had before the setting existed."""
    base = Model(name="n", folder=Path("x"), kind="base", fingerprint="f", source="path", license="")
    identities = [
        _identity(TrainConfig(rank=4, kernels=kernels), base, {"rows": 1}, [])
        for kernels in ("auto", "plain")
    ]
    assert identities[0] == "62156e6ac56ab6d8b9642c7f7f20c59ad9cbd6a9ac69694182000e75b010d657"
    assert identities[1] != identities[0]


def test_finished_run_is_returned_and_changed_one_retrained(
    tiny: Model, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    short = CONFIG.replace(epochs=1.0)
    first = fit(examples, short, tiny, tmp_path / "out")
    assert fit(examples, short, tiny, tmp_path / "out", resume=True) == first
    with writer_lock(work_folder(tmp_path / "out")):  # another process trains there with other settings
        (work_folder(tmp_path / "out") / "step-00001").mkdir()
        assert fit(examples, short, tiny, tmp_path / "out", resume=True) == first
        assert (work_folder(tmp_path / "out") / "step-00001").is_dir()
    with pytest.raises(UsageProblem, match="exists"):
        fit(examples, short, tiny, tmp_path / "out")
    changed = fit(examples[:30], short, tiny, tmp_path / "out", resume=True)
    assert changed.rows == 30


def test_checkpoint_of_other_settings_is_not_resumed(
    tiny: Model, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(examples, CONFIG, tiny, tmp_path / "out", on_event=Stop(after=3))
    sink = Stop(after=10**9)
    fit(examples, CONFIG.replace(rank=2), tiny, tmp_path / "out", on_event=sink, resume=True)
    assert sink.named("train.restart")
    assert sink.named("train.start")[0]["from_step"] == 0


def test_early_stopping_keeps_best_weights(
    tiny: Model, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    unstable = CONFIG.replace(epochs=12.0, learning_rate=0.3, schedule="constant", patience=1)
    sink = Stop(after=10**9)
    result = fit(examples[:18], unstable, tiny, tmp_path / "out", valid=examples[18:24], on_event=sink)
    losses = [e["loss"] for e in sink.named("train.eval")]
    assert sink.named("train.eval")[-1]["stopped"]
    assert result.valid_loss == min(losses)
    assert len(losses) < 12
    assert "stopped after" in result.notes[0]


def test_adapter_can_be_continued(
    tiny: Model, other: Model, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    fit(examples[:18], CONFIG, tiny, tmp_path / "first")
    config = CONFIG.replace(epochs=1.0, rank=9, learning_rate=1e-6, init_adapter=tmp_path / "first")
    fit(examples[18:], config, tiny, tmp_path / "second")
    old, new = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert all(torch.allclose(old[k], new[k], atol=1e-3) for k in old)
    with pytest.raises(BadInput, match="another base"):
        fit(examples, config, other, tmp_path / "third")


def test_non_finite_loss_stops_the_run(tiny: Model, examples: tuple[Example, ...], tmp_path: Path) -> None:
    unstable = CONFIG.replace(method="full", weight_decay=1e30, max_grad_norm=1e30, epochs=5.0)
    with pytest.raises(BadInput, match="diverged at step"):
        fit(examples, unstable, tiny, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rows_over_max_tokens_are_refused(tiny: Model, examples: tuple[Example, ...], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="longer than max_tokens"):
        fit(examples, CONFIG.replace(max_tokens=8), tiny, tmp_path / "out")


CHANGES: dict[str, Any] = {
    "epochs": 1.5,
    "learning_rate": 2e-3,
    "rank": 8,
    "alpha": 64.0,
    "dropout": 0.5,
    "batch_tokens": 200,
    "seed": 5,
    "schedule": "constant",
    "warmup": 0.5,
    "weight_decay": 5.0,
    "max_grad_norm": 1e-4,
    "variant": "pissa",
    "lora_plus": 16.0,
    "neftune": 5.0,
    "targets": ("q_proj",),
    "optimizer": "adafactor",
}


def test_every_setting_changes_the_weights(
    tiny: Model, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    config = CONFIG.replace(epochs=1.0)
    fit(examples, config, tiny, tmp_path / "plain")
    plain = weights(tmp_path / "plain")
    for key, value in CHANGES.items():
        fit(examples, config.replace(**{key: value}), tiny, tmp_path / key)
        changed = weights(tmp_path / key)
        assert not all(v.shape == plain[k].shape and torch.equal(v, plain[k]) for k, v in changed.items()), (
            key
        )


@pytest.mark.parametrize("method", TUNING_METHODS)
def test_defaults_have_reasons(method: str) -> None:
    chosen = defaults.choose_defaults(method, rows=320, params_b=0.135)
    config = chosen.config(seed=3, epochs=None)
    assert (config.method, config.seed, config.epochs) == (method, 3, 2.0)
    assert all(name in chosen.reasons for name in chosen.values if name != "method")
    assert config.learning_rate < 1e-4 if method == "full" else config.learning_rate == 5e-4


@pytest.mark.parametrize("pick", [lambda d: d["learning_rate"], lambda d: d["epochs"]])
def test_default_rate_and_epochs_fall_with_rows_and_model_size(
    pick: Callable[[dict[str, Any]], float],
) -> None:
    sizes = [(100, 0.1), (1000, 0.5), (10_000, 7.0), (100_000, 70.0)]
    values = [pick(defaults.choose_defaults("lora", rows=r, params_b=p).values) for r, p in sizes]
    assert values == sorted(values, reverse=True)


@pytest.mark.real
@pytest.mark.slow  # tests/end_to_end/test_train.py trains the real model by each method on fewer rows
@pytest.mark.parametrize("method", TUNING_METHODS)
def test_real_model_is_tuned_and_reloaded(smollm: Model, example: Path, tmp_path: Path, method: str) -> None:
    rows = load_examples(example / "examples.jsonl").rows[:32]
    config = defaults.choose_defaults(method, rows=32, params_b=0.135).config(epochs=2.0, batch_tokens=512)
    result = fit(rows, config, smollm, tmp_path / "out")
    assert result.path == "fast"
    assert result.last_loss < result.first_loss - 0.3
    model, tokenizer = load_for_inference(smollm, tmp_path / "out")
    assert isinstance(model, PeftModel | GenerationMixin)
    asked = [{"role": "user", "content": rows[0].question}]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    with torch.no_grad():
        generated = model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)
    assert generated.shape[1] > len(prompt)
