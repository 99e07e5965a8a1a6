"""The `vllm` export: the adapter, its base where no hub has it, and the line that serves both. Light.

Flags as documented in vLLM's "LoRA Adapters" page and its LoRAConfig (sources of 2026): ranks are served in steps, and
DoRA is refused by vLLM itself.
"""

from __future__ import annotations

import json
import shutil
from typing import Any

from rag.durable import MANIFEST, write_text
from rag.errors import BadInput
from runners.export.adapter import copy, load_plainly, prompting, require_adapter
from runners.export.card import short
from runners.export.job import OUT, Job, Made, quoted
from runners.export.merged import QLORA, is_qlora
from runners.export.parcel import require_room
from runners.export.source import ADAPTER
from runners.models import Model, find

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for --max-lora-rank (newer releases also 1, which the older ones refuse)."""
READ = (".json", ".jinja", ".safetensors", ".model")
SCRIPT = "serve.sh"
BASE, WEIGHTS = "base", "adapter"


def make(job: Job) -> Made:
    """Write the adapter, the base and the script; BadInput for weights that vLLM does not serve as an adapter."""
    source = job.source
    require_adapter(source)
    config = json.loads((source.made / ADAPTER).read_text(encoding="utf-8"))
    rank = _rank(config)
    base = source.base
    local = base.source != "hub" or not base.revision
    size = sum(p.stat().st_size for p in base.folder.rglob("*") if p.is_file()) if local else 0
    require_room(job.out, size + sum(entry["bytes"] for entry in source.facts["files"].values()))
    copy(source, job.made / WEIGHTS, job.out)
    if local:
        _copy_base(base, job)
    checked = load_plainly(job.made / WEIGHTS, base)
    served = launch(job.name, base, rank, local)
    here = quoted(served, ".")
    write_text(
        job.made / SCRIPT,
        f'#!/bin/sh\n# More flags of vLLM may follow on the command line.\ncd "$(dirname "$0")" && exec {here} "$@"\n',
    )
    notes = [QLORA.replace("merged into", "served on")] if is_qlora(source) else []
    if local:
        notes.append(
            f"No hub holds this base ({short(base.name)}, {base.source}) with these weights, so it is in the folder {BASE}."
        )
    how = f"From inside this folder, where vLLM is installed:\n\n```bash\n{here}\n```\n\nThe model to ask for: {job.name}\n"
    return Made(
        how + prompting(source), checked, line=served, notes=tuple(notes),
        of={"highest rank served": str(rank)},
    )  # fmt: skip


def launch(name: str, base: Model, rank: int, local: bool) -> tuple[str, ...]:
    """Return the parts of the launch line; {out} stands for the export's folder, wherever it is by then."""
    known = find(base.name)
    repo = known.repo if known else base.name
    served = (f"{OUT}/{BASE}",) if local else (repo, "--revision", base.revision)
    return (
        "vllm", "serve", *served, "--enable-lora", "--lora-modules", f"{name}={OUT}/{WEIGHTS}",
        "--max-lora-rank", str(rank), "--chat-template", f"{OUT}/{WEIGHTS}/chat_template.jinja",
    )  # fmt: skip


def _rank(config: dict[str, Any]) -> int:
    """Return the rank to ask vLLM for; BadInput for an adapter that it does not take."""
    if config.get("use_dora"):
        raise BadInput(
            "vLLM does not serve DoRA adapters", "hand it on whole, with --to merged: vllm serve FOLDER"
        )
    highest = max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])
    fitting = [rank for rank in RANKS if rank >= highest]
    if not fitting:
        raise BadInput(
            f"vLLM serves adapters up to rank {RANKS[-1]}, this one has {highest}", "use --to merged"
        )
    return fitting[0]


def _copy_base(base: Model, job: Job) -> None:
    """Copy the files of a base that transformers and vLLM read."""
    (job.made / BASE).mkdir()
    for file in sorted(base.folder.iterdir()):
        if file.is_file() and file.suffix in READ and file.name != MANIFEST:
            shutil.copyfile(file, job.made / BASE / file.name)
