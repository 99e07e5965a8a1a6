"""This project's training kernels and decoding equal the plain transformers path, over random shapes and dtypes.

Tolerances: in fp32 the loss within 1e-5 and the gradients within 2e-5 (relative, of the whole gradient), so rounding
only; in bf16 the fast path may be three times as far from the fp32 result as the plain bf16 path is. Greedy tokens are
equal, in fp32.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

import runners
from rag.errors import BadInput
from runners.data.examples import Example
from runners.inference.batched import BatchRow, generate_batch
from runners.inference.decoding import Decoder, TokenSampler
from runners.inference.kv_cache import CachedPrefix, StaticKVCache
from runners.inference.local import local_generator
from runners.models.resolve import Model
from runners.plan.schema import parse_plan
from runners.tokenization.chat_template import EncodedRow
from runners.training.loss import choose_loss, restore_loss
from runners.trial.execute import run_plan
from tests.support.opened import opened_run

END = 2
"""The token that ends an answer."""
FEW = settings(max_examples=20, deadline=None, derandomize=True)


@dataclass(frozen=True)
class Case:
    """The shapes of one comparison."""

    kind: str = "llama"
    groups: int = 2
    """Key/value heads."""
    fold: int = 2
    """Query heads that share one of them."""
    head_dim: int = 8
    layers: int = 1
    vocabulary: int = 64
    rank: int = 4
    tied: bool = True
    prefix: int = 6
    """First tokens that all rows share."""
    lengths: tuple[int, ...] = (9, 14, 11)
    """Tokens of each row after them."""
    seed: int = 0


cases = st.builds(
    Case,
    kind=st.sampled_from(["llama", "qwen2"]),
    groups=st.integers(1, 3),
    fold=st.integers(1, 3),
    head_dim=st.sampled_from([2, 8, 10]),
    layers=st.integers(1, 2),
    vocabulary=st.integers(20, 300),
    rank=st.integers(1, 9),
    tied=st.booleans(),
    prefix=st.integers(0, 24),
    lengths=st.lists(st.integers(4, 40), min_size=1, max_size=5).map(tuple),
    seed=st.integers(0, 2**16),
)


def make_model(case: Case) -> Any:
    """Build a model of these shapes with weights so large that its logits are far apart."""
    torch.manual_seed(case.seed)
    heads = case.groups * case.fold
    shape: dict[str, Any] = {
        "vocab_size": case.vocabulary,
        "hidden_size": 8 * heads,
        "intermediate_size": 40,
        "num_hidden_layers": case.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": case.groups,
        "head_dim": case.head_dim,
        "max_position_embeddings": 1024,
        "initializer_range": 0.3,
        "tie_word_embeddings": case.tied,
        "eos_token_id": END,
        "pad_token_id": 0,
        "bos_token_id": 1,
    }
    if case.kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**shape)).eval()
    model = Qwen2ForCausalLM(Qwen2Config(**shape))
    for layer in model.model.layers:
        for linear in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
            nn.init.normal_(linear.bias, std=0.3)
    return model.eval()


def make_rows(case: Case) -> list[EncodedRow]:
    """Draw rows that share a prefix; about two thirds of each row's own tokens are targets, with gaps."""
    generator = torch.Generator().manual_seed(case.seed)

    def draw(count: int) -> list[int]:
        return torch.randint(3, case.vocabulary, (count,), generator=generator).tolist()

    prefix, rows = draw(case.prefix), []
    for line, length in enumerate(case.lengths):
        first = case.prefix + 2
        learnt = [at for at in range(first, case.prefix + length) if at % 3 or at == first]
        rows.append(EncodedRow((*prefix, *draw(length)), tuple(learnt), line))
    return rows


def with_lora(case: Case) -> Any:
    """Build the model with adapters in fp32 whose B is not zero."""
    net = get_peft_model(
        make_model(case), LoraConfig(r=case.rank, lora_alpha=2 * case.rank, target_modules="all-linear")
    )
    for name, parameter in net.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return net.train()


def in_bf16(net: nn.Module) -> nn.Module:
    """Return a copy whose frozen weights are bf16; adapters stay fp32."""
    net = deepcopy(net)
    for name, parameter in net.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.bfloat16()
    return net


def loss_and_gradient(net: nn.Module, path: str, rows: Sequence[EncodedRow]) -> tuple[float, torch.Tensor]:
    """Return the loss by one path, and the gradients of all adapters as one vector."""
    net.zero_grad()
    loss = restore_loss(net, path)(rows)
    loss.backward()
    gradients = [
        p.grad.flatten() for name, p in net.named_parameters() if p.grad is not None and "lora_" in name
    ]
    return float(loss.detach()), torch.cat(gradients)


def distance(result: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the length of the difference of two vectors over that of the reference."""
    return float((result - reference).norm() / reference.norm())


def assert_equal_in_fp32(fast: tuple[float, torch.Tensor], plain: tuple[float, torch.Tensor]) -> None:
    """Assert that losses and gradients differ by rounding only."""
    assert fast[0] == pytest.approx(plain[0], rel=1e-5)
    assert distance(fast[1], plain[1]) < 2e-5


@FEW
@given(cases)
@example(Case(prefix=0, lengths=(530, 520)))
@example(Case(prefix=540, lengths=(9, 9, 30), groups=1, fold=4))
@example(Case(prefix=3, lengths=(12, 12)))
def test_fast_loss_and_gradients_equal_plain_in_fp32(case: Case) -> None:
    """The first example uses torch's kernel row by row, the second shares the long prefix of long rows."""
    net, rows = with_lora(case), make_rows(case)
    assert choose_loss(net, rows).path == "fast"
    assert choose_loss(net, rows, kernels="plain").path == "plain"
    assert_equal_in_fp32(loss_and_gradient(net, "fast", rows), loss_and_gradient(net, "plain", rows))


@FEW
@given(cases)
def test_fast_loss_and_gradients_are_as_exact_as_plain_in_bf16(case: Case) -> None:
    net, rows = with_lora(case), make_rows(case)
    half = in_bf16(net)
    # The exact result for the weights as bf16 holds them.
    exact = loss_and_gradient(half.float(), "plain", rows)
    half = in_bf16(net)
    plain, fast = (loss_and_gradient(half, path, rows) for path in ("plain", "fast"))
    assert abs(fast[0] - exact[0]) <= 3 * abs(plain[0] - exact[0]) + 0.005 * exact[0]
    assert distance(fast[1], exact[1]) <= 3 * distance(plain[1], exact[1]) + 0.02


@settings(FEW, max_examples=5)
@given(cases, st.integers(0, 10**6))
def test_loss_comparison_detects_changed_weight(case: Case, which: int) -> None:
    """Of an adapter or of the base, one matrix at a time, by a hundredth of its size."""
    net, rows = with_lora(case), make_rows(case)
    plain = loss_and_gradient(net, "plain", rows)
    matrices = [p for name, p in net.named_parameters() if p.ndim == 2 and "embed" not in name]
    changed = matrices[which % len(matrices)]
    with torch.no_grad():
        changed.mul_(1.01)
    with pytest.raises(AssertionError):
        assert_equal_in_fp32(loss_and_gradient(net, "fast", rows), plain)


def answers_of_transformers(model: Any, prompts: Sequence[list[int]], limit: int) -> list[list[int]]:
    """Return transformers' greedy tokens for each prompt by itself, without the end token."""
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            row = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False
            )[0]
        answers.append(until_end(row[len(prompt) :].tolist()))
    return answers


def until_end(tokens: Sequence[int]) -> list[int]:
    """Return tokens before the first end token."""
    return list(takewhile(lambda token: token != END, tokens))


def answers_in_a_batch(
    decoder: Decoder, prompts: Sequence[list[int]], limit: int, shared: tuple[int, CachedPrefix] | None = None
) -> list[list[int]]:
    """Return this project's greedy tokens for prompts decoded together, rows leaving as they end."""
    answers: list[list[int]] = [[] for _ in prompts]

    def on_token(row: int, token: int) -> bool:
        if token != END:
            answers[row].append(token)
        return token == END

    decoder.decode_batch(prompts, limit, on_token, TokenSampler(), range(len(prompts)), shared)
    return answers


def answer_alone(
    decoder: Decoder, prompt: list[int], limit: int, shared: tuple[int, CachedPrefix] | None = None
) -> list[int]:
    """Return this project's greedy tokens for one prompt, with guesses verified."""
    cache = StaticKVCache(decoder.layers, 1, len(prompt) + limit)
    if shared:
        cache.load_prefix(shared[1], shared[0])
    return until_end(list(decoder.decode_one(prompt, limit, TokenSampler(), cache)))


def make_prompts(case: Case) -> list[list[int]]:
    """Return prompts of these lengths that share the prefix."""
    return [list(row.ids) for row in make_rows(case)]


@FEW
@given(cases)
def test_greedy_tokens_equal_transformers_generate(case: Case) -> None:
    """Batched and single, with and without a cached prefix, in fp32."""
    model, prompts, limit = make_model(case), make_prompts(case), 16
    expected = answers_of_transformers(model, prompts, limit)  # before the decoder joins the model's weights
    decoder = Decoder(model)
    assert decoder.fused_step is not None
    shared = (case.prefix, decoder.cache_prefix(prompts[0][: case.prefix])) if case.prefix else None
    assert answers_in_a_batch(decoder, prompts, limit) == expected
    assert answers_in_a_batch(decoder, prompts, limit, shared) == expected
    assert [answer_alone(decoder, prompt, limit) for prompt in prompts] == expected
    assert [answer_alone(decoder, prompt, limit, shared) for prompt in prompts] == expected


def test_token_comparison_detects_changed_weight_and_damaged_prefix() -> None:
    case = Case(layers=2, vocabulary=200, prefix=20, lengths=(9, 14, 11, 30), seed=3)
    model, prompts, limit = make_model(case), make_prompts(case), 16
    expected = answers_of_transformers(model, prompts, limit)
    decoder = Decoder(model)
    prefix = decoder.cache_prefix(prompts[0][: case.prefix])
    assert answers_in_a_batch(decoder, prompts, limit, (case.prefix, prefix)) == expected
    damaged = replace(prefix, layers=tuple((keys, values.flip(2)) for keys, values in prefix.layers))
    assert answers_in_a_batch(decoder, prompts, limit, (case.prefix, damaged)) != expected
    assert [answer_alone(decoder, p, limit, (case.prefix, damaged)) for p in prompts] != expected
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.mul_(0.8)
    assert answers_in_a_batch(decoder, prompts, limit) != expected
    assert [answer_alone(decoder, p, limit) for p in prompts] != expected


def test_plain_generator_uses_transformers_with_equal_answers(
    tiny: Model, adapter: Path, examples: tuple[Example, ...]
) -> None:
    asked = [list(row.messages[:-1]) for row in examples[:5]]
    auto, plain = (local_generator(tiny, adapter, "float32", kernels) for kernels in ("auto", "plain"))
    assert auto.decoder is not None
    assert plain.decoder is None
    expected = [answer.text for answer in plain.generate(asked, 12)]
    assert all(expected)
    assert [answer.text for answer in auto.generate(asked, 12)] == expected
    for generator in (auto, plain):
        assert [generator.stream(chat, 12).finish().text for chat in asked] == expected
        rows = [BatchRow(prompt=generator.prompt(chat, 12), limit=12) for chat in asked]
        assert [answer.text for answer in generate_batch(generator, rows)] == expected
    plain.use(None)
    assert plain.decoder is None, "and with other weights too"


def test_plan_with_plain_kernels_uses_reference_path(tiny: Model, tmp_path: Path) -> None:
    files = {
        "e.jsonl": [{"prompt": f"How long is rope {n}?", "completion": f"{n} metres."} for n in range(8)],
        "q.jsonl": [{"question": f"How long is chain {n}?", "reference": f"{n} metres."} for n in range(3)],
    }
    for name, rows in files.items():
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    body = {
        "name": "p",
        "choice": "lora",
        "model": {"name": str(tiny.folder)},
        "weights": {"token_f1": 1},
        "data": {"examples": str(tmp_path / "e.jsonl"), "test_questions": str(tmp_path / "q.jsonl")},
        "steps": [
            {"kind": "train", "arm": "lora", "epochs": 1, "rank": 2, "alpha": 4},
            {"kind": "evaluate", "arm": "lora", "weights": "lora"},
        ],
        "max_new_tokens": 4,
        "kernels": "plain",
        "forgetting": {"prompts": 0},
    }
    plan = parse_plan(body)
    run = run_plan(plan, tmp_path / "run")
    events = {event["event"]: event for event in run.events()}
    assert events["run.start"]["kernels"] == "plain"
    assert (events["train.start"]["kernels"], events["train.start"]["path"]) == ("plain", "plain")
    assert (events["decode.start"]["path"], events["decode.start"]["reason"]) == (
        "plain",
        "kernels plain: asked for",
    )
    bench = opened_run(plan, run, tiny).models
    generator: Any = bench.generator(run.adapter("lora", 0), plan.arms[0])
    assert generator.decoder is None
    with pytest.raises(BadInput, match="started with: kernels"):
        run_plan(parse_plan({**body, "kernels": "auto"}), tmp_path / "run", resume=True)
    again = run_plan(plan, tmp_path / "run", resume=True).events()
    skipped = [event["step"] for event in again if event["event"] == "step.skip"]
    assert skipped == ["train:lora", "evaluate:lora"]


ENTRY_POINTS: dict[str, tuple[set[str], set[str] | None]] = {
    "training.cpu_kernels": ({"training/loss"}, {"CpuKernels", "select"}),
    "training.loss": (
        {
            "training/group/prepared_model",
            "training/loop",
            "training/runtime",
            "preflight/device_probe",
            "preflight/speed_probe",
        },
        {
            "TrainingLoss",
            "LinearCrossEntropy",
            "choose_loss",
            "restore_loss",
            "LOSS_TOLERANCE",
            "GRADIENT_TOLERANCE",
            "PLAIN_REQUESTED",
            "evaluation_mode",
        },
    ),
    "inference.local": (
        {
            *("inference/batched", "inference/constraints/answer_forms", "inference/label_scores"),
            *(
                "arms/scored_labels",
                "lookup/generator",
                "lookup/tool_models",
                "runs/loaded_models",
                "serving/batch",
                "synthesis/teacher",
                "trial/forgetting",
            ),
        },
        None,
    ),
    "inference.decoding": (
        {
            *("inference/local", "inference/batched", "inference/decoding_path", "inference/label_scores"),
            *("inference/constraints/answer_forms", "inference/constraints/sampler"),
        },
        {"Decoder", "PREFILL_MULTIPLE", "TokenSampler"},
    ),
    "inference.decoding_path": (
        {"inference/local"},
        {"DecodingPath", "choose_path", "path_file", "read_path"},
    ),
    "inference.llama_step": (
        {
            *("inference/decoding", "inference/decoding_path", "inference/local"),
            "inference/weights",
        },
        None,
    ),
    "inference.kv_cache": (
        {
            *("inference/decoding", "inference/decoding_path", "inference/local", "inference/llama_step"),
            *("inference/label_scores", "arms/scored_labels"),
        },
        None,
    ),
}
"""For each module of a fast path, the modules that may import it, and which names (None: any)."""


def test_fast_paths_have_one_entry_point() -> None:
    root = Path(str(runners.__file__)).parents[1]
    generators, imported = [], set()
    for path in [*(root / "runners").rglob("*.py"), *(root / "advisor").rglob("*.py")]:
        importer = path.relative_to(root).with_suffix("").as_posix().removeprefix("runners/")
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("runners"):
                module = str(node.module).partition(".")[2]
                for alias in node.names:
                    # Either a name of the module, or the module itself.
                    target = module if module in ENTRY_POINTS else f"{module}.{alias.name}"
                    if target not in ENTRY_POINTS:
                        continue
                    imported.add(target)
                    importers, names = ENTRY_POINTS[target]
                    assert importer in importers, (path, target)
                    assert names is None or target != module or alias.name in names, (path, alias.name)
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "LocalGenerator"
            ):
                generators.append(importer)
    assert imported == set(ENTRY_POINTS)
    assert generators == ["inference/local"]
