"""The `merged` export: one whole model in safetensors, compared with base and adapter apart. torch is imported inside.

A qlora arm is merged into the full-precision base, as the trial measured it: `tunewise` answers with the adapter on that
base, not on the 4-bit one it was trained against, and so do PEFT and vLLM unless they are told to quantise. Merging into
the dequantised 4-bit base would be another model, which nobody has scored.
"""

from __future__ import annotations

import gc
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.durable import write_json
from rag.errors import CannotRun
from runners.chat import Chat
from runners.export import replay
from runners.export.adapter import prompting
from runners.export.job import Job, Made
from runners.export.parcel import require_room
from runners.export.rounding import settle
from runners.export.source import Source
from runners.fingerprint import read_json, tensor_sizes
from runners.machine import GIB

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
QLORA = (
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
class Whole:
    """An arm's model in one piece, in float32, and how base and weights apart answered."""

    net: Any
    before: replay.Played
    dtype: str
    """The number type that the base's own weights are written in."""

    def compare(self, net: Any) -> replay.Compared:
        """Compare another model with the arm as it was measured."""
        return replay.compare(self.before, net)


def make(job: Job) -> Made:
    """Write the merged model and load it back; BadInput for another base, CannotRun without memory or disk."""
    source = job.source
    whole = load_whole(source)
    dtype, found, notes = settle(job.dtype, whole.dtype, ["float32"], lambda kind: _written(whole, kind, job))
    return Made(
        _HOW + prompting(source),
        {**found.told("base and weights apart"), "number type": dtype},
        notes=(*([QLORA] if is_qlora(source) else []), *notes),
    )


def load_whole(source: Source) -> Whole:
    """Load base and weights in float32, let them answer apart, then put them in one piece; CannotRun without memory."""
    from runners.weights import free_gib, from_folder, load_adapter, load_base, merged_for_inference

    base = source.base
    need = 4 * sum(tensor_sizes(base.folder)) / GIB
    if need > free_gib():
        raise CannotRun(
            f"merging in float32 takes about {need:.1f} GiB of memory, {free_gib():.1f} GiB are free",
            "free some memory, or hand on the adapter: --to peft or vllm",
        )
    chat = Chat(source.made)
    ends, limit = tuple(sorted(chat.eos_ids)), min(replay.TOKENS, source.plan.max_new_tokens)
    prompts = replay.tokens(chat, replay.chats(source))
    config = read_json(base.folder / "config.json")
    dtype = str(config.get("dtype") or config.get("torch_dtype"))
    dtype = dtype if dtype in BYTES else "float32"
    if not source.is_adapter:
        import torch

        net: Any = from_folder(source.made, torch.float32, {})
        return Whole(net, replay.play(net, prompts, ends, limit), dtype)
    apart = load_adapter(load_base(base, "float32"), source.made, base)
    before = replay.play(apart, prompts, ends, limit)
    return Whole(merged_for_inference(apart), before, dtype)


def is_qlora(source: Source) -> bool:
    """Say whether the weights were trained against a 4-bit base."""
    return bool(source.facts["config"]["method"] == "qlora")


def written_size(net: Any, dtype: str) -> int:
    """Return the bytes that a model's weights take on the disk; tied ones count once."""
    return sum(p.numel() for p in net.parameters()) * BYTES[dtype]


def _written(whole: Whole, dtype: str, job: Job) -> replay.Compared:
    """Write the model in a number type, load it back in float32 and compare."""
    import torch

    from runners.weights import from_folder

    require_room(job.out, written_size(whole.net, dtype))
    write(whole.net, dtype, job.source.made, job.made)
    back = from_folder(job.made, torch.float32, {})
    found = whole.compare(back)
    del back
    gc.collect()
    return found


def write(net: Any, dtype: str, weights: Path, folder: Path) -> None:
    """Write a model and the tokenizer of its weights' folder as transformers does, safetensors only."""
    import torch

    from runners.weights import load_tokenizer

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
