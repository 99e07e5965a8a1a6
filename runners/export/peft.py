"""The `peft` export: the adapter's folder as PEFT wrote it, loaded back with plain PEFT.

`make_peft` is the target's maker. `copy_adapter`, `load_in_plain_peft` and `prompting_notes` are shared with other
targets. torch and peft are imported inside functions.
"""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.files import read_manifest, write_json
from rag.grounding.context import format_passages
from rag.types import Chunk, Hit
from runners.arms.prompts import user_turn
from runners.export.card import short_model_name
from runners.export.job import ExportedFiles, ExportJob, require_disk_space
from runners.export.source import ADAPTER_CONFIG, ExportSource
from runners.models.adapters import ADAPTER_WEIGHTS
from runners.models.resolve import Model
from runners.plan.steps import NF4
from runners.tokenization.chat_template import ChatTokenizer

_USAGE = """```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained(BASE)  # {base}, of the fingerprint below
model = PeftModel.from_pretrained(base, ".")  # this folder
tokenizer = AutoTokenizer.from_pretrained(".")
```

PEFT keeps only the base's name and loads onto any model of the same shape; `manifest.json` has the hashes that the
base, its vocabulary and its chat template must have.
"""


def make_peft(job: ExportJob) -> ExportedFiles:
    """Copy the adapter's folder and load it with plain PEFT; raise `BadInput` for weights that are a whole model."""
    source = job.source
    manifest_facts = copy_adapter(source, job.folder, job.out)
    return ExportedFiles(
        usage=_USAGE.format(base=short_model_name(source.base.name)) + prompting_notes(source),
        checked=load_in_plain_peft(job.folder, source.base, source.model.quantization == NF4),
        kind="adapter",
        extra=manifest_facts,
    )


def copy_adapter(source: ExportSource, folder: Path, out: Path) -> dict[str, Any]:
    """Copy an adapter's files into a folder, with the base's path replaced by its name.

    Args:
        source: the run with the selected arm.
        folder: where the files are written.
        out: the export's destination, whose disk is checked for space.

    Returns:
        The facts of the adapter's manifest, without paths.

    Raises:
        BadInput: the weights are no adapter.
        CannotRun: too little disk space.
    """
    require_adapter(source)
    names = list(source.weights_manifest["files"])
    require_disk_space(out, sum(entry["bytes"] for entry in source.weights_manifest["files"].values()))
    folder.mkdir(exist_ok=True)
    for name in names:
        shutil.copyfile(source.weights_folder / name, folder / name)
    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    if (base := config["base_model_name_or_path"]) != short_model_name(base):
        write_json(folder / ADAPTER_CONFIG, {**config, "base_model_name_or_path": short_model_name(base)})
    manifest = read_manifest(source.weights_folder, "adapter")
    facts = {key: value for key, value in manifest.items() if key not in ("files", "schema", "kind")}
    init_adapter = manifest["config"].get("init_adapter")
    return {
        **facts,
        "name": short_model_name(manifest["name"]),
        "base": {**manifest["base"], "name": short_model_name(manifest["base"]["name"])},
        "config": {
            **manifest["config"],
            **({"init_adapter": Path(init_adapter).name} if init_adapter else {}),
        },
    }


def require_adapter(source: ExportSource) -> None:
    """Raise `BadInput` when the arm's weights are a whole model."""
    if not source.is_adapter:
        assert source.arm is not None
        raise BadInput(
            f"the weights of the arm {source.arm.arm} are a whole model: full tuning makes no adapter",
            "hand it on with --to merged, gguf or ollama",
        )


def load_in_plain_peft(folder: Path, base: Model, four_bit: bool = False) -> dict[str, Any]:
    """Load an adapter as PEFT's documentation shows, and compare every tensor with the file.

    Args:
        folder: the adapter.
        base: its base.
        four_bit: whether the base is loaded in 4 bits, as the run answered with it.

    Returns:
        What was compared, for the card.

    Raises:
        BadInput: PEFT warns, or holds other tensors than the file.
    """
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file

    from runners.inference.weights import load_base

    base_model = load_base(base, four_bit=four_bit)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Deprecations between peft and transformers do not concern this adapter.
        warnings.simplefilter("ignore", FutureWarning)
        model = PeftModel.from_pretrained(base_model, str(folder), local_files_only=True)
    if caught:
        raise BadInput(f"PEFT warns on loading the adapter: {str(caught[0].message)[:200]}", "train it again")
    loaded = get_peft_model_state_dict(model, save_embedding_layers=False)
    written = load_file(folder / ADAPTER_WEIGHTS)
    if loaded.keys() != written.keys() or not all(torch.equal(loaded[k].cpu(), written[k]) for k in written):
        raise BadInput("PEFT loaded other tensors than those in the adapter's file", "train it again")
    return {"loads in plain PEFT without a warning": True, "tensors equal to the file's": len(written)}


def prompting_notes(source: ExportSource) -> str:
    """Return, in Markdown, how to prompt the model as the trial did: its instructions, and the format of its passages."""
    plan, arm = source.plan, source.arm
    assert arm is not None
    notes = "\nAsk it with its own chat template"
    if plan.prompts.system:
        notes += f", and with these instructions as the system turn:\n\n```text\n{plan.prompts.system.strip()}\n```\n"
    else:
        notes += ".\n"
    chat = ChatTokenizer(source.weights_folder, plan.thinking.enabled)
    for note in chat.notes:
        notes += f"\nIn the trial, {note}.\n"
    if variables := chat.features.chosen(plan.thinking.enabled):
        given = ", ".join(f"{name}={value}" for name, value in variables.items())
        notes += f"\nGive the chat template these variables, as the trial did: `{given}`.\n"
    if not arm.retrieval:
        return notes
    text = "Dogs travel on deck for 3 euros."
    chunk = Chunk(0, "fares.md", "Fares", 0, text, 0, len(text), "Dogs", 12, 12)
    question = "What does a dog cost?"
    example = user_turn(
        plan.prompts, question, format_passages([Hit(chunk, 1.0, 1.0, 1.0)], 1024, len, question)
    )
    return (
        f"{notes}\nThis arm answers from numbered passages in the user's turn, best first, as in this example with one. The "
        f"word that opens each passage and closes the last is drawn again for each turn, so that no document can contain "
        f"it:\n\n```text\n{example.strip()}\n```\n\n"
        "Without them it is not what was measured; `tunewise ask` finds them, and `--to bundle` hands on what it needs.\n"
    )
