"""The README of tuned weights: what they were made from and what was measured."""

from __future__ import annotations

from typing import Any

from runners.models import Model


def card(base: Model, facts: dict[str, Any]) -> str:
    """Return a model card for weights tuned on ``base``, from the facts their manifest holds."""
    config, data, result = facts["config"], facts["data"], facts["result"]
    rows = [
        ("method", config["method"]),
        ("base model", f"{base.name} ({base.source}), fingerprint {base.fingerprint[:16]}"),
        ("rows", f"{data['rows']} ({data['left_out']} left out as too long), SHA-256 {data['sha256'][:16]}"),
        ("epochs, learning rate", f"{config['epochs']}, {config['learning_rate']}"),
        ("seed", config["seed"]),
        ("trained parameters", result["trainable"]),
        ("loss, first and last tenth", f"{result['first_loss']:.3f}, {result['last_loss']:.3f}"),
        ("tokens, tokens per second", f"{result['tokens']}, {result['tokens_per_s']:.0f}"),
    ]
    if config["method"] != "full":
        rows.insert(4, ("rank, alpha, dropout", f"{config['rank']}, {config['alpha']}, {config['dropout']}"))
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return _CARD.format(
        name=base.name, table=table, library="transformers" if config["method"] == "full" else "peft"
    )


_CARD = """---
base_model: {name}
library_name: {library}
tags: [tunewise]
---
# {name}, tuned with tunewise

| what | value |
|---|---|
{table}

Made for one task on one team's examples; facts that changed since are stale in these weights.
The chat template beside this file is the one it was trained with: use no other. `manifest.json` holds every
setting and the hash of every file.
"""
