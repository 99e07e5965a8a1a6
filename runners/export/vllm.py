"""The `vllm` export: the adapter, its base model where no hub has it, and a script that serves both.

Flags follow vLLM's page "LoRA Adapters" and its LoRAConfig (sources of 2026): `--max-lora-rank` takes certain values
only, and vLLM refuses DoRA.
"""

from __future__ import annotations

import json
import shutil
from typing import Any

from rag.errors import BadInput
from rag.files import MANIFEST, write_text
from runners.export.card import short_model_name
from runners.export.job import OUT_PLACEHOLDER, ExportedFiles, ExportJob, require_disk_space, shell_line
from runners.export.merged import merging_notes
from runners.export.peft import copy_adapter, load_in_plain_peft, prompting_notes, require_adapter
from runners.export.source import ADAPTER_CONFIG
from runners.models.registry import find_known_model
from runners.models.resolve import Model
from runners.plan.steps import NF4

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM accepts for --max-lora-rank (newer releases also 1, which older ones refuse)."""
BASE_SUFFIXES = (".json", ".jinja", ".safetensors", ".model")
"""Suffixes of the base's files that transformers and vLLM read."""
SERVE_SCRIPT = "serve.sh"
BASE = "base"
WEIGHTS = "adapter"


def make_vllm(job: ExportJob) -> ExportedFiles:
    """Write the adapter, the base and the script; raise `BadInput` for weights that vLLM does not serve as an adapter."""
    source = job.source
    require_adapter(source)
    config = json.loads((source.weights_folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    rank = _served_rank(config)
    base = source.base
    local = base.source != "hub" or not base.revision
    size = sum(p.stat().st_size for p in base.folder.rglob("*") if p.is_file()) if local else 0
    require_disk_space(
        job.out, size + sum(entry["bytes"] for entry in source.weights_manifest["files"].values())
    )
    copy_adapter(source, job.folder / WEIGHTS, job.out)
    if local:
        _copy_base(base, job)
    checked = load_in_plain_peft(job.folder / WEIGHTS, base, source.model.quantization == NF4)
    command = launch_command(job.name, base, rank, local)
    line = shell_line(command, ".")
    write_text(
        job.folder / SERVE_SCRIPT,
        f'#!/bin/sh\n# More flags of vLLM may follow on the command line.\ncd "$(dirname "$0")" && exec {line} "$@"\n',
    )
    notes = [note.replace("merged into", "served on") for note in merging_notes(source)]
    if local:
        notes.append(
            f"No model hub has this base ({short_model_name(base.name)}, {base.source}) with these weights, "
            f"so it is in the folder {BASE}."
        )
    usage = (
        f"From inside this folder, where vLLM is installed:\n\n```bash\n{line}\n```\n\n"
        f"The model to ask for: {job.name}\n"
    )
    return ExportedFiles(
        usage + prompting_notes(source),
        checked,
        line=command,
        notes=tuple(notes),
        made_from={"highest rank served": str(rank)},
    )


def launch_command(name: str, base: Model, rank: int, local: bool) -> tuple[str, ...]:
    """Return the parts of the command that serves the export; {out} is replaced by the export's folder."""
    known = find_known_model(base.name)
    repo = known.repo if known else base.name
    base_arguments = (f"{OUT_PLACEHOLDER}/{BASE}",) if local else (repo, "--revision", base.revision)
    return (
        "vllm",
        "serve",
        *base_arguments,
        "--enable-lora",
        "--lora-modules",
        f"{name}={OUT_PLACEHOLDER}/{WEIGHTS}",
        "--max-lora-rank",
        str(rank),
        "--chat-template",
        f"{OUT_PLACEHOLDER}/{WEIGHTS}/chat_template.jinja",
    )


def _served_rank(config: dict[str, Any]) -> int:
    """Return the smallest of vLLM's ranks that fits the adapter; raise `BadInput` when none does."""
    if config.get("use_dora"):
        raise BadInput(
            "vLLM does not serve DoRA adapters", "hand it on whole, with --to merged: vllm serve FOLDER"
        )
    highest = max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])
    fitting = [rank for rank in VLLM_RANKS if rank >= highest]
    if not fitting:
        raise BadInput(
            f"vLLM serves adapters up to rank {VLLM_RANKS[-1]}, this one has {highest}", "use --to merged"
        )
    return fitting[0]


def _copy_base(base: Model, job: ExportJob) -> None:
    """Copy the base's files that transformers and vLLM read."""
    (job.folder / BASE).mkdir()
    for file in sorted(base.folder.iterdir()):
        if file.is_file() and file.suffix in BASE_SUFFIXES and file.name != MANIFEST:
            shutil.copyfile(file, job.folder / BASE / file.name)
