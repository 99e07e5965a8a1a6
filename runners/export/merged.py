"""The `merged` export: base and adapter merged into one model in safetensors, compared with the two unmerged.

A qlora arm is merged into the full-precision base. Where the plan's model is not quantised that is what the trial
measured: `tunewise` answered with the adapter on that base, not on the 4-bit one it was trained against, and so do PEFT
and vLLM unless they are told to quantise. Where the plan holds the model in nf4, a note says that the trial answered from
4 bits; merging needs a machine that holds the base in float32. Merging into the dequantised 4-bit base would give another
model, which no trial has scored.

The comparison replays five prompts, in float32 on both sides. The reference answers greedily; the written model reads
these answers and must choose the same token at each position, which by induction means that it gives the same greedy
answer. One forward pass gives tokens and logits, where generating again would take one pass for each token.

Weights are written in the base's own number type, unless rounding to it changes an answer. torch is imported inside
functions.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.errors import CannotRun
from rag.files import write_json
from runners.data.formats import Message, system_turn
from runners.export.job import ExportedFiles, ExportJob, require_disk_space
from runners.export.peft import prompting_notes
from runners.export.source import ExportSource
from runners.models.fingerprint import read_json, tensor_sizes
from runners.plan.steps import NF4
from runners.resources.machine import GIB
from runners.run_folder import TRIAL, read_journal
from runners.tokenization.chat_template import ChatTokenizer
from runners.trial.trial import ANSWERS

REPLAYED_PROMPTS = 5
"""Prompts that are compared."""
REPLAYED_TOKENS = 32
"""Longest answer that is compared."""
LOGIT_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.01, "q8_0": 0.1}
"""Root mean square difference of the logits, in standard deviations of the logits, that rounding the weights to a number
type may make. Measured on SmolLM2-135M with rank 16 adapters: see benchmarks/LOG.md, 2026-11-25."""
_GENERAL_PROMPTS = (
    "What can you help me with?",
    "Please answer in one sentence: when do you open?",
    "I have lost my bag.",
    "Who should I call about a mistake in my bill?",
    "Thank you. Is there anything else that I should know?",
)
AUTO_DTYPE = "auto"
_FALLBACKS = ("float32",)
"""Number types to try with "auto" after the base's own."""
BYTES_PER_WEIGHT = {"float32": 4, "bfloat16": 2, "float16": 2}
QUANTIZED_TRIAL_NOTE = (
    "In the trial the base was loaded in 4 bits with the adapter on top; here the adapter is merged into the base in full "
    "precision. Its answers differ a little from those that were measured."
)
QLORA_NOTE = (
    "Trained against the base in 4 bits, merged into the base in full precision: that is what the trial measured. "
    "Base and adapter in 4 bits answer a little differently."
)
_USAGE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(".")  # this folder
tokenizer = AutoTokenizer.from_pretrained(".")
```

or `vllm serve .` from inside this folder. It needs no separate base model.
"""


@dataclass(frozen=True, slots=True)
class ReplayedAnswers:
    """A model's greedy answers to the prompts, as tokens."""

    prompts: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]
    logits: tuple[Any, ...]
    """float32 [tokens of the answer, vocabulary] for each prompt: the logits that each token was chosen from."""


@dataclass(frozen=True, slots=True)
class ReplayComparison:
    """How far one model's answers differ from another's."""

    same: int
    """Prompts whose greedy tokens are all equal."""
    prompts: int
    tokens: int
    """Tokens compared."""
    largest: float
    """Largest difference of a logit."""
    relative: float
    """Root mean square difference, in standard deviations of the logits."""

    def holds(self, dtype: str) -> bool:
        """Return whether all tokens are equal and the logits within the tolerance of the number type."""
        return self.same == self.prompts and self.relative <= LOGIT_TOLERANCE[dtype]

    def to_facts(self, reference: str) -> dict[str, Any]:
        """Return the numbers for card and manifest; `reference` names what was compared with."""
        return {
            f"greedy tokens equal to {reference}": f"{self.same} of {self.prompts} prompts, {self.tokens} tokens",
            "largest difference of a logit": self.largest,
            "root mean square difference, in standard deviations": self.relative,
        }


@dataclass(frozen=True, slots=True)
class MergedModel:
    """An arm's merged model in float32, and the answers of base and adapter unmerged."""

    model: Any
    reference: ReplayedAnswers
    dtype: str
    """The number type of the base's own weights."""

    def compare(self, model: Any) -> ReplayComparison:
        """Compare another model's answers with the unmerged ones."""
        return compare_answers(self.reference, model)


def make_merged(job: ExportJob) -> ExportedFiles:
    """Write the merged model and load it back.

    Raises:
        BadInput: the base here is not the one that the weights were trained on.
        CannotRun: too little memory or disk, or no number type keeps the answers.
    """
    source = job.source
    merged_model = load_merged(source)
    types = candidate_dtypes(job.dtype, merged_model.dtype, _FALLBACKS)
    # a larger type is written where the smaller one changes answers, so there must be space for the largest
    require_disk_space(job.out, max(written_size(merged_model.model, dtype) for dtype in types))
    dtype, comparison, notes = write_in_smallest_dtype(
        job.dtype, merged_model.dtype, _FALLBACKS, lambda dtype: _write_and_compare(merged_model, dtype, job)
    )
    return ExportedFiles(
        _USAGE + prompting_notes(source),
        {**comparison.to_facts("base plus weights"), "number type": dtype},
        notes=(*merging_notes(source), *notes),
    )


def load_merged(source: ExportSource) -> MergedModel:
    """Load base and weights in float32, record their answers, then merge them.

    Raises:
        CannotRun: too little memory.
    """
    from runners.inference.weights import (
        free_gib,
        load_adapter,
        load_base,
        load_model_folder,
        merged_for_inference,
    )

    base = source.base
    needed_gib = 4 * sum(tensor_sizes(base.folder)) / GIB  # 4 bytes per float32 weight
    if needed_gib > free_gib():
        raise CannotRun(
            f"merging in float32 takes about {needed_gib:.1f} GiB of memory, {free_gib():.1f} GiB are free",
            "free some memory, or hand on the adapter: --to peft or vllm",
        )
    chat = ChatTokenizer(source.weights_folder, source.plan.thinking.enabled)
    eos_ids = tuple(sorted(chat.eos_ids))
    limit = min(REPLAYED_TOKENS, source.plan.max_new_tokens)
    prompts = prompt_tokens(chat, replay_prompts(source))
    config = read_json(base.folder / "config.json")
    dtype = str(config.get("dtype") or config.get("torch_dtype"))
    dtype = dtype if dtype in BYTES_PER_WEIGHT else "float32"
    if not source.is_adapter:
        import torch

        model: Any = load_model_folder(source.weights_folder, torch.float32, {})
        return MergedModel(model, replay_answers(model, prompts, eos_ids, limit), dtype)
    unmerged = load_adapter(load_base(base, "float32"), source.weights_folder, base)
    reference = replay_answers(unmerged, prompts, eos_ids, limit)
    return MergedModel(merged_for_inference(unmerged), reference, dtype)


def replay_prompts(source: ExportSource) -> list[list[Message]]:
    """Return the first prompts that the arm was asked in the trial, filled up with general ones."""
    assert source.arm is not None
    prompts: list[list[Message]] = []
    for row in read_journal(source.run.path / TRIAL / ANSWERS):
        if row.get("arm") == source.arm.arm and row.get("prompt") and row["prompt"] not in prompts:
            prompts.append(row["prompt"])
        if len(prompts) == REPLAYED_PROMPTS:
            break
    system = system_turn(source.plan.prompts.system)
    general = _GENERAL_PROMPTS[len(prompts) :]
    return prompts + [[*system, {"role": "user", "content": text}] for text in general]


def prompt_tokens(chat: ChatTokenizer, chats: Sequence[Sequence[Message]]) -> list[list[int]]:
    """Return chats as tokens, up to where the assistant's answer begins."""
    return [chat.encode(chat.render(messages, prompt=True)) for messages in chats]


def replay_answers(
    model: Any, prompts: Sequence[Sequence[int]], eos_ids: Sequence[int], limit: int
) -> ReplayedAnswers:
    """Answer every prompt greedily and keep the logits of every generated token, the end token included.

    Args:
        model: a transformers model.
        prompts: the tokens of each prompt.
        eos_ids: tokens that end an answer.
        limit: most tokens of an answer.
    """
    import torch

    from runners.inference.generation_rules import neutral_settings

    answers, logits = [], []
    for prompt in prompts:
        ids = torch.tensor([list(prompt)], device=model.device)
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                # The likeliest token by the logits alone: with a penalty it could not be read off another model's logits.
                **neutral_settings(model.generation_config),
                max_new_tokens=limit,
                do_sample=False,
                num_beams=1,
                use_cache=True,
                eos_token_id=sorted(eos_ids),
                pad_token_id=min(eos_ids),
                output_logits=True,
                return_dict_in_generate=True,
            )
        answers.append(tuple(int(token) for token in output.sequences[0, len(prompt) :].tolist()))
        logits.append(torch.cat(output.logits).float().cpu())
    return ReplayedAnswers(tuple(map(tuple, prompts)), tuple(answers), tuple(logits))


def compare_answers(reference: ReplayedAnswers, model: Any) -> ReplayComparison:
    """Run another model over the reference's prompts and answers, and compare its choices and logits."""
    import torch

    same = 0
    logits = []
    for prompt, answer in zip(reference.prompts, reference.answers, strict=True):
        ids = torch.tensor([[*prompt, *answer]], device=model.device)
        with torch.inference_mode():
            # The logits at position i choose token i + 1: from the prompt's last token to the answer's last but one.
            output = model(input_ids=ids, logits_to_keep=len(answer) + 1).logits[0, :-1].float().cpu()
        same += output.argmax(dim=-1).tolist() == list(answer)
        logits.append(output)
    expected = torch.cat(reference.logits)
    difference = expected - torch.cat(logits)
    return ReplayComparison(
        same,
        len(reference.prompts),
        len(expected),
        float(difference.abs().max()),
        float(difference.pow(2).mean().sqrt() / expected.std()),
    )


def write_in_smallest_dtype(
    requested: str, base_dtype: str, fallbacks: Sequence[str], write: Callable[[str], ReplayComparison]
) -> tuple[str, ReplayComparison, list[str]]:
    """Write a model in the requested number type, or in the first that keeps the answers.

    Args:
        requested: a number type, which is used even if it changes answers (a note says so); or "auto".
        base_dtype: the type to try first with "auto".
        fallbacks: the types to try after it.
        write: writes the model in a type and compares it.

    Returns:
        The type, the comparison, and notes for the user.

    Raises:
        CannotRun: with "auto", no type keeps the answers.
    """
    notes: list[str] = []
    for dtype in candidate_dtypes(requested, base_dtype, fallbacks):
        comparison = write(dtype)
        if comparison.holds(dtype):
            return dtype, comparison, [*notes, *([f"The weights are in {dtype}."] if notes else [])]
        notes.append(_difference_note(dtype, comparison))
    if requested == AUTO_DTYPE:
        raise CannotRun(
            f"what was written is not what was measured: {notes[-1]}", "hand on the adapter: --to peft"
        )
    return dtype, comparison, [*notes, "--dtype float32 loses nothing."]


def candidate_dtypes(requested: str, base_dtype: str, fallbacks: Sequence[str]) -> list[str]:
    """Return the number types that :func:`write_in_smallest_dtype` may write, in its order."""
    return list(dict.fromkeys([base_dtype, *fallbacks])) if requested == AUTO_DTYPE else [requested]


def merging_notes(source: ExportSource) -> tuple[str, ...]:
    """Return what merging into full precision means for weights of a run that trained or answered in 4 bits."""
    if source.model.quantization == NF4:
        return (QUANTIZED_TRIAL_NOTE,)
    return (QLORA_NOTE,) if is_qlora(source) else ()


def is_qlora(source: ExportSource) -> bool:
    """Return whether the weights were trained on a 4-bit base."""
    return bool(source.weights_manifest["config"]["method"] == "qlora")


def written_size(model: Any, dtype: str) -> int:
    """Return the bytes that a model's weights take on the disk; tied weights count once."""
    return sum(p.numel() for p in model.parameters()) * BYTES_PER_WEIGHT[dtype]


def write_model(model: Any, dtype: str, weights: Path, folder: Path) -> None:
    """Write a model as transformers does, in safetensors, with the tokenizer from the folder of its weights."""
    import torch

    from runners.inference.weights import load_tokenizer

    shutil.rmtree(folder)
    folder.mkdir()
    torch_dtype = getattr(torch, dtype)
    cast: dict[int, Any] = {}  # by the address of the original tensor
    state = {}
    for name, tensor in model.state_dict().items():
        # Tied weights must stay one tensor, or they would be written twice.
        state[name] = cast.setdefault(
            tensor.data_ptr(), tensor.to(torch_dtype) if tensor.is_floating_point() else tensor
        )
    model.save_pretrained(folder, state_dict=state)
    # transformers writes the number type of the model in memory, which is float32 here.
    write_json(folder / "config.json", {**read_json(folder / "config.json"), "dtype": dtype})
    load_tokenizer(weights).save_pretrained(folder)


def _difference_note(dtype: str, comparison: ReplayComparison) -> str:
    return (
        f"In {dtype}, {comparison.prompts - comparison.same} of {comparison.prompts} prompts get other tokens than "
        f"from base plus weights, and the logits differ by {comparison.relative:.2g} standard deviations."
    )


def _write_and_compare(merged_model: MergedModel, dtype: str, job: ExportJob) -> ReplayComparison:
    """Write the model in a number type, load it back in float32 and compare."""
    import torch

    from runners.inference.weights import load_model_folder

    write_model(merged_model.model, dtype, job.source.weights_folder, job.folder)
    loaded = load_model_folder(job.folder, torch.float32, {})
    comparison = merged_model.compare(loaded)
    del loaded
    gc.collect()
    return comparison
