"""The model card (README.md) of tuned weights: their base and data, settings, scores, and how to load them.

:func:`model_card` writes it from the facts of a manifest; :func:`rewrite_card` adds the scores of a trial.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rag.files import MANIFEST, write_json, write_text
from runners.data.teachers import teachers_from_json
from runners.models.licenses import terms_of_derivatives

CARD_FILE = "README.md"
"""Name of the file; no manifest lists it, because people edit it."""


def model_card(facts: Mapping[str, Any]) -> str:
    """Return the model card of tuned weights.

    Args:
        facts: the manifest of the weights.
    """
    config = facts["config"]
    base, data = facts["base"], facts["data"]
    full = config["method"] == "full"
    front_matter = {
        "base_model": base["name"],
        "library_name": "transformers" if full else "peft",
        "license": base["license"],
        "pipeline_tag": "text-generation",
    }
    head = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front_matter.items())
    parts = (
        f"---\n{head}\ntags: [tunewise]\n---\n# {base['name']}, tuned with tunewise",
        markdown_table(("what", "value"), _summary_rows(facts)),
        "## Settings\n\n" + markdown_table(("setting", "value", "why"), _setting_rows(facts)),
        "## Scores\n\n" + _scores(facts.get("scores")),
        "## Loading it without tunewise\n\n" + (_FULL if full else _ADAPTER),
        *terms_section(base["license"]),
        *_teachers_section(data),
        _CARE,
    )
    return "\n\n".join(parts)


def terms_section(license_name: str) -> list[str]:
    """Return the section of a card on the terms of the base model, as one part; [] where there is nothing to say."""
    terms = terms_of_derivatives(license_name)
    return [f"## Terms\n\n{terms}"] if terms else []


def _teachers_section(data: Mapping[str, Any]) -> list[str]:
    """Return the section of a card on the models that wrote training rows, as one part; [] where none did."""
    return teachers_section([teacher.line for teacher in teachers_from_json(data.get("teachers"))])


def teachers_section(lines: Sequence[str]) -> list[str]:
    """Return the section of a card of these sentences on the teachers of rows, as one part; [] of none."""
    return ["## Written by a teacher\n\n" + "\n".join(f"- {line}" for line in lines)] if lines else []


def rewrite_card(folder: Path, scores: Mapping[str, Any]) -> None:
    """Add a trial's scores to the manifest of a folder and write its card again.

    Each of the two writes is atomic, and the folder of weights is valid between them.

    Args:
        folder: the folder of tuned weights.
        scores: ``{"questions": n, "scores": {name: {"mean", "low", "high", "n"}}}``.
    """
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["scores"] = dict(scores)
    write_json(folder / MANIFEST, manifest)
    write_text(folder / CARD_FILE, model_card(manifest))


def _summary_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of the first table: method, base, data, parameters, losses and speed."""
    base, data, result = facts["base"], facts["data"], facts["result"]
    source = f"{base['source']} {base['revision']}".strip()
    files = f"{', '.join(data['files'])}: " if data.get("files") else ""
    rows = [
        ("method", _method(facts["config"])),
        ("base model", f"{base['name']} ({source}), fingerprint {base['fingerprint'][:16]}"),
        ("licence of the base", base["license"]),
        (
            "data",
            f"{files}{data['rows']} rows, {data['left_out']} skipped as too long, SHA-256 {data['sha256'][:16]}",
        ),
        ("trained parameters", f"{result['trainable']:,}"),
        ("loss, first and last tenth of the steps", f"{result['first_loss']:.3f}, {result['last_loss']:.3f}"),
    ]
    if result.get("valid_loss") is not None:
        rows.append(("best validation loss", f"{result['valid_loss']:.3f} on {data['valid_rows']} rows"))
    rows.append(
        (
            "tokens, tokens per second",
            f"{result['tokens']:,} in {result['steps']} steps, {result['tokens_per_s']:.0f}",
        )
    )
    if facts.get("plan_sha256"):
        rows.append(("plan", f"SHA-256 {facts['plan_sha256'][:16]}"))
    return rows


def _method(config: Mapping[str, Any]) -> str:
    variant = config.get("variant", "lora")
    return f"{config['method']}, {variant}" if variant != "lora" else str(config["method"])


def _setting_rows(facts: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return every setting that applies to the method, with its reason where one was given."""
    adapter_settings = ("rank", "alpha", "dropout", "variant", "targets", "lora_plus", "init_adapter")
    reasons = facts.get("reasons", {})
    rows = []
    for name, value in facts["config"].items():
        if (
            name == "method"
            or value is None
            or (facts["config"]["method"] == "full" and name in adapter_settings)
        ):
            continue
        shown = (
            ", ".join(value) if isinstance(value, list) else Path(value).name if "/" in str(value) else value
        )
        why = str(reasons.get(name, "")).removeprefix(f"{value} because ")
        rows.append((name, str(shown), why))
    return rows


def _scores(scores: Mapping[str, Any] | None) -> str:
    """Return the scores as a table, or a sentence when there are none."""
    if not scores:
        return "Not measured on held-out questions."
    rows = [
        (name, f"{s['mean']:.3f}", f"{s['low']:.3f} to {s['high']:.3f}", s["n"])
        for name, s in scores["scores"].items()
    ]
    return markdown_table(("score", "mean", "95 % interval", "questions"), rows)


def markdown_table(head: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> str:
    """Return a Markdown table; ``|`` in cells is escaped."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(v).replace("|", "\\|") for v in line) + " |" for line in lines)


_ADAPTER = """```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained(BASE)  # the base model named above, of that fingerprint
model = PeftModel.from_pretrained(base, FOLDER)  # this folder
tokenizer = AutoTokenizer.from_pretrained(FOLDER)
```

PEFT does not notice another base, vocabulary or chat template; tunewise refuses them by the hashes in
`manifest.json`."""
_FULL = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(FOLDER)  # this folder
tokenizer = AutoTokenizer.from_pretrained(FOLDER)
```"""
_CARE = """## Care

Trained for one task on one team's examples; it still states facts that have changed since. The chat template
beside this file is the one it was trained with: use no other. `manifest.json` has every setting and the hash of
every file.
"""
