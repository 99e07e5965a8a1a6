"""Switching the tuned weights of a base in memory: the base stays bit-identical."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rag.errors import BadInput
from rag.files import MANIFEST, write_manifest
from runners.data.examples import Example
from runners.inference.local import LocalGenerator
from runners.inference.weights import SwitchableModel, base_facts, merge_plain_lora
from runners.models.resolve import Model
from runners.plan.schema import parse_plan
from runners.plan.steps import EvaluateStep
from runners.run_folder import RunFolder
from runners.runs.session import RunContext
from tests.families import build

ARM = EvaluateStep(arm="prompting")


@pytest.fixture(scope="module")
def tuned(tiny: Model, adapter: Path) -> LocalGenerator:
    """The tiny model with the adapter."""
    return LocalGenerator(tiny, adapter, "float32")


def chats(examples: tuple[Example, ...], count: int) -> list[list[dict[str, str]]]:
    return [list(e.messages[:-1]) for e in examples[:count]]


def test_switching_adapters_restores_base_bit_for_bit(
    tiny: Model, adapter: Path, tuned: LocalGenerator, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    asked = chats(examples, 3)
    switched = LocalGenerator(tiny, None, "bfloat16")
    bare = {name: p.clone() for name, p in switched.model.named_parameters()}
    direct = LocalGenerator(tiny, adapter, "bfloat16")
    copy = tmp_path / "copy"
    shutil.copytree(adapter, copy)
    before = switched.generate(asked, 8)
    for folder in (adapter, copy, adapter):
        switched.use(folder)
        for name, parameter in switched.model.named_parameters():
            assert torch.equal(parameter, direct.model.get_parameter(name))
        assert [c.text for c in switched.generate(asked, 8)] == [c.text for c in direct.generate(asked, 8)]
        switched.use(None)
        assert all(torch.equal(p, bare[name]) for name, p in switched.model.named_parameters())
        assert [c.text for c in switched.generate(asked, 8)] == [c.text for c in before]
    direct.use(None)
    assert all(torch.equal(p, bare[name]) for name, p in direct.model.named_parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("variant", ["use_rslora", "use_dora", "modules_to_save", "rank_pattern", ""])
def test_plain_adapter_is_merged_with_the_bits_of_peft(
    tmp_path: Path, dtype: torch.dtype, variant: str
) -> None:
    values: dict[str, Any] = {"modules_to_save": ["lm_head"], "rank_pattern": {"q_proj": 2}}
    extra = {variant: values.get(variant, True)} if variant else {}
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "down_proj"], **extra)
    net = get_peft_model(build("llama", dtype=dtype), config)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    net.save_pretrained(str(tmp_path))
    bare, model = build("llama", dtype=dtype), build("llama", dtype=dtype)
    expected: Any = PeftModel.from_pretrained(build("llama", dtype=dtype), tmp_path)
    expected = expected.merge_and_unload()
    merged = merge_plain_lora(model, tmp_path)
    assert merged == (variant in ("", "use_rslora"))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, (expected if merged else bare).get_parameter(name))
    assert any(not torch.equal(p, bare.get_parameter(name)) for name, p in expected.named_parameters())


def test_adapter_of_another_base_is_refused_and_base_stays(
    other: Model, adapter: Path, examples: tuple[Example, ...]
) -> None:
    generator = LocalGenerator(other, None, "float32")
    asked = chats(examples, 2)
    before = [c.text for c in generator.generate(asked, 6)]
    with pytest.raises(BadInput, match="another base"):
        generator.use(adapter)
    assert [c.text for c in generator.generate(asked, 6)] == before


@pytest.mark.parametrize("kind", ["adapter", "model"])
def test_failed_switch_leaves_model_usable(
    tiny: Model,
    adapter: Path,
    tuned: LocalGenerator,
    examples: tuple[Example, ...],
    tmp_path: Path,
    kind: str,
) -> None:
    """The switch fails halfway: at an adapter whose matrices are too wide, or a whole model that is cut short."""
    generator = LocalGenerator(tiny, None, "float32")
    asked = chats(examples, 2)
    before = [c.text for c in generator.generate(asked, 8)]

    folder = shutil.copytree(adapter if kind == "adapter" else tiny.folder, tmp_path / kind)
    (folder / MANIFEST).unlink(missing_ok=True)
    if kind == "adapter":
        file = folder / "adapter_model.safetensors"
        save_file({name: torch.cat([part, part], -1) for name, part in load_file(file).items()}, file)
    else:
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
    write_manifest(folder, kind, {"base": base_facts(tiny)})
    with pytest.raises(RuntimeError if kind == "adapter" else SafetensorError):
        generator.use(folder)
    generator.use(None)
    assert [c.text for c in generator.generate(asked, 8)] == before
    generator.use(adapter)
    assert [c.text for c in generator.generate(asked, 8)] == [c.text for c in tuned.generate(asked, 8)]


def test_prefix_cache_is_separate_per_adapter(
    tiny: Model, adapter: Path, tuned: LocalGenerator, examples: tuple[Example, ...]
) -> None:
    asked = chats(examples, 3)
    generator = LocalGenerator(tiny, None, "float32")
    generator.generate(asked, 8)
    generator.use(adapter)
    assert [c.text for c in generator.generate(asked, 8)] == [c.text for c in tuned.generate(asked, 8)]
    assert len({owner for owner, _ in generator.prefixes._entries}) == 2


@pytest.mark.parametrize("free", [lambda: 0.0, lambda: 9.0], ids=["no-memory", "memory"])
def test_base_copy_is_held_only_if_it_fits(tiny: Model, adapter: Path, free: Callable[[], float]) -> None:
    weights = SwitchableModel(tiny, None, "bfloat16", free)
    bare, first = {name: p.clone() for name, p in weights.model.named_parameters()}, weights.model
    for _ in range(2):
        weights.use(adapter)
        assert any(not torch.equal(p, bare[name]) for name, p in weights.model.named_parameters())
        weights.use(None)
        assert all(torch.equal(p, bare[name]) for name, p in weights.model.named_parameters())
    assert (weights.model is first) == bool(free())


def test_arms_of_a_run_share_the_loaded_base(
    tiny: Model, adapter: Path, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    plan = parse_plan(
        {
            "name": "p",
            "choice": "prompting",
            "model": {"name": str(tiny.folder)},
            "data": {"questions": "q"},
            "steps": [ARM.model_dump()],
            "weights": {"token_f1": 1},
        }
    )
    bench = RunContext(plan, RunFolder.create(tmp_path / "run", plan), tiny)
    bare = bench.generator(None, ARM)
    asked = chats(examples, 3)
    before = [c.text for c in bare.generate(asked, 8)]
    assert bench.generator(adapter, ARM) is bare
    assert [c.text for c in bare.generate(asked, 8)] != before
    assert bench.generator(None, ARM) is bare
    assert [c.text for c in bare.generate(asked, 8)] == before
    bench.release()
    assert bench.generator(None, ARM) is not bare
