"""Training and answering on the GPU of this machine, whatever its kind; skipped where torch sees none."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch

from runners.data.examples import Example
from runners.inference.local import local_generator
from runners.inference.weights import default_device, dtype_for, free_gib
from runners.models import resolve
from runners.plan.train_config import TrainConfig
from runners.resources.device import DTYPE_ENV, device_kind, device_name
from runners.resources.machine import detect_machine
from runners.train import fit

pytestmark = pytest.mark.skipif(
    device_kind() == "cpu", reason="needs a CUDA GPU, or one of AMD, Intel or Apple that torch uses"
)


def tiny_models() -> ModuleType:
    """Return the module that makes the tiny model and its examples for the tests of runners."""
    path = Path(__file__).parents[1] / "runners" / "conftest.py"
    spec = importlib.util.spec_from_file_location("tiny_models", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def examples() -> tuple[Example, ...]:
    return tuple(tiny_models().make_example(number) for number in range(36))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, examples: tuple[Example, ...]) -> resolve.Model:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    tiny_models().build_tiny(folder, examples, seed=0)
    return resolve.resolve_model(str(folder))


def test_run_and_detection_name_the_same_device() -> None:
    machine = detect_machine()
    assert machine.device == device_kind()
    assert machine.dtype[0] == str(dtype_for()[0]).removeprefix("torch.")
    assert default_device().type != "cpu"
    assert device_name()
    assert free_gib() > 0


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_training_lowers_the_loss_and_resumes(
    model: resolve.Model, examples: tuple[Example, ...], tmp_path: Path, method: str
) -> None:
    config = TrainConfig(method=method, epochs=4.0, learning_rate=1e-2 if method != "full" else 1e-3)
    result = fit(examples, config, model, tmp_path / "out")
    assert result.last_loss < result.first_loss
    quantization = "nf4" if method == "qlora" else "none"
    generator = local_generator(model, tmp_path / "out", quantization=quantization)
    assert generator.model.device.type == default_device().type
    answers = generator.generate([list(example.messages[:-1]) for example in examples[:4]], 8)
    assert all(answer.completion_tokens for answer in answers)


def test_float16_with_a_loss_scale(
    model: resolve.Model, examples: tuple[Example, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device_kind() == "mps":
        pytest.skip("needs a CUDA GPU, or one of AMD or Intel: an Apple GPU computes in float32")
    losses = {}
    for dtype in ("float32", "float16"):
        monkeypatch.setenv(DTYPE_ENV, dtype)
        result = fit(examples, TrainConfig(epochs=4.0, learning_rate=1e-2), model, tmp_path / dtype)
        losses[dtype] = result.last_loss
    assert losses["float16"] == pytest.approx(losses["float32"], rel=0.1)
    log = (tmp_path / "float16" / "training.jsonl").read_text("utf-8").splitlines()
    assert all(json.loads(line) for line in log)
    shutil.rmtree(tmp_path / "float16")
    torch.manual_seed(0)
