"""The `merged` export: one whole model in safetensors, compared with base and adapter apart. torch is imported inside.

A qlora arm is merged into the full-precision base, as the trial measured it: `tunewise` answers with the adapter on that
base, not on the 4-bit one it was trained against, and so do PEFT and vLLM unless they are told to quantise. Merging into
the dequantised 4-bit base would be another model, which nobody has scored.

Five prompts, answered before and after: whether what was written is what was measured. torch is imported inside.

Both sides compute in float32. The untouched side answers greedily; the other side reads its answers and must choose the
same token at every place of them, which by induction is to give the same greedy answer. One pass does for tokens and
logits, where answering again would take as many passes as there are tokens.

In which number type weights are written: the base's own, unless rounding to it changes an answer. Light.
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
from runners.resources.machine import GIB
from runners.run_folder import TRIAL, read_journal
from runners.tokenization.chat_template import ChatTokenizer
from runners.trial.trial import ANSWERS

REPLAYED_PROMPTS = 5
REPLAYED_TOKENS = 32
"""Longest answer that is compared."""
LOGIT_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.01, "q8_0": 0.1}
"""Root mean square difference of the logits, in standard deviations of the logits, that rounding the weights to a number
type may make. Measured on SmolLM2-135M with rank 16 adapters: see benchmarks/LOG.md, 2026-11-25."""
_PLAIN = (
    "What can you help me with?",
    "Please answer in one sentence: when do you open?",
    "I have lost my bag.",
    "Who should I call about a mistake in my bill?",
    "Thank you. Is there anything else that I should know?",
)


@dataclass(frozen=True, slots=True)
class ReplayedAnswers:
    """What a model said to the prompts."""

    prompts: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]
    logits: tuple[Any, ...]
    """float32 [tokens of the answer, vocabulary] for each prompt: what each token was chosen from."""


@dataclass(frozen=True, slots=True)
class ReplayComparison:
    """How far one model's answers are from another's."""

    same: int
    """Prompts whose greedy tokens are equal to the end."""
    prompts: int
    tokens: int
    """Tokens compared."""
    largest: float
    """Largest difference of a logit."""
    relative: float
    """Root mean square difference, in standard deviations of the logits."""

    def holds(self, dtype: str) -> bool:
        """Say whether the tokens are equal and the logits within what the number type allows."""
        return self.same == self.prompts and self.relative <= LOGIT_TOLERANCE[dtype]

    def told(self, against: str) -> dict[str, Any]:
        """Return the numbers for card and manifest."""
        return {
            f"greedy tokens equal to {against}": f"{self.same} of {self.prompts} prompts, {self.tokens} tokens",
            "largest difference of a logit": self.largest,
            "root mean square difference, in standard deviations": self.relative,
        }


def replay_prompts(source: ExportSource) -> list[list[Message]]:
    """Return the first five prompts that the arm was asked in the trial; general ones where there are fewer."""
    assert source.arm is not None
    found: list[list[Message]] = []
    for row in read_journal(source.run.path / TRIAL / ANSWERS):
        if row.get("arm") == source.arm.arm and row.get("prompt") and row["prompt"] not in found:
            found.append(row["prompt"])
        if len(found) == REPLAYED_PROMPTS:
            break
    system = system_turn(source.plan.prompts.system)
    return found + [[*system, {"role": "user", "content": text}] for text in _PLAIN[len(found) :]]


def prompt_tokens(chat: ChatTokenizer, asked: Sequence[Sequence[Message]]) -> list[list[int]]:
    """Return chats as the model reads them, to where it is to speak."""
    return [chat.encode(chat.render(messages, prompt=True)) for messages in asked]


def replay_answers(
    net: Any, prompts: Sequence[Sequence[int]], ends: Sequence[int], limit: int
) -> ReplayedAnswers:
    """Answer every prompt greedily and keep the logits that every token, the end included, was chosen from."""
    import torch

    answers, logits = [], []
    for prompt in prompts:
        ids = torch.tensor([list(prompt)], device=net.device)
        with torch.inference_mode():
            found = net.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=limit,
                do_sample=False,
                eos_token_id=sorted(ends),
                pad_token_id=min(ends),
                output_logits=True,
                return_dict_in_generate=True,
            )
        answers.append(tuple(int(token) for token in found.sequences[0, len(prompt) :].tolist()))
        logits.append(torch.cat(found.logits).float().cpu())
    return ReplayedAnswers(tuple(map(tuple, prompts)), tuple(answers), tuple(logits))


def compare_answers(before: ReplayedAnswers, net: Any) -> ReplayComparison:
    """Let another model read what was answered before, and say how far it is from answering the same."""
    import torch

    same, after = 0, []
    for prompt, answer in zip(before.prompts, before.answers, strict=True):
        ids = torch.tensor([[*prompt, *answer]], device=net.device)
        with torch.inference_mode():
            found = net(input_ids=ids, logits_to_keep=len(answer) + 1).logits[0, :-1].float().cpu()
        same += found.argmax(dim=-1).tolist() == list(answer)
        after.append(found)
    old, new = torch.cat(before.logits), torch.cat(after)
    off = old - new
    return ReplayComparison(
        same,
        len(before.prompts),
        len(old),
        float(off.abs().max()),
        float(off.pow(2).mean().sqrt() / old.std()),
    )


AUTO_DTYPE = "auto"


def write_in_smallest_dtype(
    wished: str, own: str, then: Sequence[str], write: Callable[[str], ReplayComparison]
) -> tuple[str, ReplayComparison, list[str]]:
    """Write in the type wished for, or in the first that keeps the answers; return it, what was compared, and notes.

    With "auto" the base's ``own`` type comes first, then those of ``then``. A type that was asked for by name is kept
    whatever it changes, which is noted. Raises CannotRun when not even the last type gives what was measured.
    """
    notes: list[str] = []
    types = list(dict.fromkeys([own, *then])) if wished == AUTO_DTYPE else [wished]
    for dtype in types:
        found = write(dtype)
        if found.holds(dtype):
            return dtype, found, [*notes, *([f"The weights are in {dtype}."] if notes else [])]
        notes.append(_changed(dtype, found))
    if wished == AUTO_DTYPE:
        raise CannotRun(
            f"what was written is not what was measured: {notes[-1]}", "hand on the adapter: --to peft"
        )
    return dtype, found, [*notes, "--dtype float32 loses nothing."]


def _changed(dtype: str, found: ReplayComparison) -> str:
    return (
        f"In {dtype}, {found.prompts - found.same} of {found.prompts} prompts get other tokens than from base and weights "
        f"apart, and the logits differ by {found.relative:.2g} standard deviations."
    )


BYTES_PER_WEIGHT = {"float32": 4, "bfloat16": 2, "float16": 2}
QLORA_NOTE = (
    "Trained against the base in 4 bits, merged into the base in full precision: that is what the trial measured. "
    "Base and adapter in 4 bits answer a little differently."
)
_HOW = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(".")  # this folder
tokenizer = AutoTokenizer.from_pretrained(".")
```

or `vllm serve .` from inside this folder. It needs no base beside it.
"""


@dataclass(frozen=True, slots=True)
class MergedModel:
    """An arm's model in one piece, in float32, and how base and weights apart answered."""

    net: Any
    before: ReplayedAnswers
    dtype: str
    """The number type that the base's own weights are written in."""

    def compare(self, net: Any) -> ReplayComparison:
        """Compare another model with the arm as it was measured."""
        return compare_answers(self.before, net)


def make_merged(job: ExportJob) -> ExportedFiles:
    """Write the merged model and load it back; BadInput for another base, CannotRun without memory or disk."""
    source = job.source
    whole = load_merged(source)
    dtype, found, notes = write_in_smallest_dtype(
        job.dtype, whole.dtype, ["float32"], lambda kind: _written(whole, kind, job)
    )
    return ExportedFiles(
        _HOW + prompting_notes(source),
        {**found.told("base and weights apart"), "number type": dtype},
        notes=(*([QLORA_NOTE] if is_qlora(source) else []), *notes),
    )


def load_merged(source: ExportSource) -> MergedModel:
    """Load base and weights in float32, let them answer apart, then put them in one piece; CannotRun without memory."""
    from runners.inference.weights import (
        free_gib,
        load_adapter,
        load_base,
        load_model_folder,
        merged_for_inference,
    )

    base = source.base
    need = 4 * sum(tensor_sizes(base.folder)) / GIB
    if need > free_gib():
        raise CannotRun(
            f"merging in float32 takes about {need:.1f} GiB of memory, {free_gib():.1f} GiB are free",
            "free some memory, or hand on the adapter: --to peft or vllm",
        )
    chat = ChatTokenizer(source.made)
    ends, limit = tuple(sorted(chat.eos_ids)), min(REPLAYED_TOKENS, source.plan.max_new_tokens)
    prompts = prompt_tokens(chat, replay_prompts(source))
    config = read_json(base.folder / "config.json")
    dtype = str(config.get("dtype") or config.get("torch_dtype"))
    dtype = dtype if dtype in BYTES_PER_WEIGHT else "float32"
    if not source.is_adapter:
        import torch

        net: Any = load_model_folder(source.made, torch.float32, {})
        return MergedModel(net, replay_answers(net, prompts, ends, limit), dtype)
    apart = load_adapter(load_base(base, "float32"), source.made, base)
    before = replay_answers(apart, prompts, ends, limit)
    return MergedModel(merged_for_inference(apart), before, dtype)


def is_qlora(source: ExportSource) -> bool:
    """Say whether the weights were trained against a 4-bit base."""
    return bool(source.facts["config"]["method"] == "qlora")


def written_size(net: Any, dtype: str) -> int:
    """Return the bytes that a model's weights take on the disk; tied ones count once."""
    return sum(p.numel() for p in net.parameters()) * BYTES_PER_WEIGHT[dtype]


def _written(whole: MergedModel, dtype: str, job: ExportJob) -> ReplayComparison:
    """Write the model in a number type, load it back in float32 and compare."""
    import torch

    from runners.inference.weights import load_model_folder

    require_disk_space(job.out, written_size(whole.net, dtype))
    write_model(whole.net, dtype, job.source.made, job.made)
    back = load_model_folder(job.made, torch.float32, {})
    found = whole.compare(back)
    del back
    gc.collect()
    return found


def write_model(net: Any, dtype: str, weights: Path, folder: Path) -> None:
    """Write a model and the tokenizer of its weights' folder as transformers does, safetensors only."""
    import torch

    from runners.inference.weights import load_tokenizer

    shutil.rmtree(folder)
    folder.mkdir()
    kind = getattr(torch, dtype)
    cast: dict[int, Any] = {}
    state = {}
    for name, tensor in net.state_dict().items():
        # Tied weights stay one tensor, or they would be written twice.
        state[name] = cast.setdefault(
            tensor.data_ptr(), tensor.to(kind) if tensor.is_floating_point() else tensor
        )
    net.save_pretrained(folder, state_dict=state)
    # transformers writes the number type of the model in memory, which is float32 here.
    write_json(folder / "config.json", {**read_json(folder / "config.json"), "dtype": dtype})
    load_tokenizer(weights).save_pretrained(folder)
