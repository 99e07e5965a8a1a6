"""The card of an export: what it is, how it scored, what it was made from, how to run it. Light.

Nothing in it names a place on the machine that made it: paths begin in the export's own folder, and what was named by
its path is called by the last part of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from runners.data import personal_data
from runners.export.job import ExportedFiles, ExportJob
from runners.export.source import ExportSource
from runners.models import endpoint, registry, resolve
from runners.models.cards import markdown_table

LIBRARY_OF_TARGET = {
    "peft": "peft",
    "merged": "transformers",
    "gguf": "gguf",
    "ollama": "gguf",
    "vllm": "peft",
}


def export_card(job: ExportJob, made: ExportedFiles) -> str:
    """Return the export's README.md; BadInput when a key or password would stand in it."""
    source = job.source
    what = f"{source.plan.name}: {job.target.makes}"
    parts = [
        _front(job),
        f"# {what}",
        _told(source),
        "## How to use it\n\n" + made.how.strip(),
        *(["## Worth knowing\n\n" + "\n".join(f"- {note}" for note in made.notes)] if made.notes else []),
        "## Scores\n\n" + _scores(source),
        "## Made from\n\n" + markdown_table(("what", "value"), [*_made_from(source), *made.of.items()]),
        "## Checked when it was made\n\n"
        + markdown_table(("what", "found"), [(k, checked_value(v)) for k, v in made.checked.items()]),
        "`manifest.json` holds the SHA-256 of every other file. Made by tunewise export.",
    ]
    text = without_paths(source, "\n\n".join(part for part in parts if part) + "\n")
    refuse_secrets(text, "the card")
    return text


def export_facts(job: ExportJob) -> dict[str, Any]:
    """Return what the manifest says of an export: kind, run, arm, seed and the base it fits, without places."""
    source = job.source
    body: dict[str, Any] = {"to": job.target.name, "run": source.plan.name, "plan": source.plan.digest()}
    if source.arm:
        body |= {"arm": source.arm.arm, "seed": source.seed}
    if source.facts:
        base = source.facts["base"]
        body["base"] = {**base, "name": short_model_name(base["name"])}
    return body


def short_model_name(name: str) -> str:
    """Return a model's name; of a path its last part, of an endpoint its model and host."""
    if remote := resolve.parse_remote(name):
        return f"{remote.name} at {endpoint.endpoint_host(remote.url)}"
    return (
        Path(name).name
        if registry.find_known_model(name) is None and Path(name).expanduser().is_absolute()
        else name
    )


def without_paths(source: ExportSource, text: str) -> str:
    """Return a text with every path that the plan or the base names cut to its last part."""
    plan = source.plan
    named = [plan.model.name, plan.embedder.name, *(step.model.name for step in plan.arms if step.model)]
    named += [source.facts["base"]["name"]] if source.facts else []
    found: dict[str, str] = {name: short_model_name(name) for name in named if name != short_model_name(name)}
    places = [p for p in plan.data.model_dump().values() if isinstance(p, Path) and p.is_absolute()]
    found |= {str(place): place.name for place in (*places, source.run.path.absolute())}
    for long in sorted(found, key=len, reverse=True):
        text = text.replace(long, found[long])
    return text


def refuse_secrets(text: str, where: str) -> None:
    """Raise BadInput when a text that is to be handed on holds a key or password; its value is not told."""
    for kind in personal_data.PERSONAL_DATA_KINDS:
        if kind.secret and any(map(kind.real, kind.shape.finditer(text))):
            raise BadInput(
                f"{where} would hold a secret: {kind.name}", "take it out of the plan and its prompts"
            )


def checked_value(value: Any) -> str:
    """Return a checked value as the card shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _front(job: ExportJob) -> str:
    """The front matter that model hubs read; none where there are no weights."""
    if job.target.of != "weights":
        return ""
    base = job.source.facts["base"]
    front: dict[str, Any] = {
        "base_model": short_model_name(base["name"]),
        "library_name": LIBRARY_OF_TARGET[job.target.name],
        "license": base["license"],
        "pipeline_tag": "text-generation",
    }
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()]
    return "---\n" + "\n".join(lines) + "\ntags: [tunewise]\n---"


def _told(source: ExportSource) -> str:
    arm = source.arm
    if arm is None:
        said = f"From the run of the plan {source.plan.name}, made for {short_model_name(source.plan.model.name)}."
    else:
        seed = f", seed {source.seed}" if source.seed is not None else ""
        said = f"The arm {arm.arm}{seed} of the plan {source.plan.name}, on {short_model_name(source.plan.model.name)}."
    if not source.report:
        return f"{said} The run was not finished: there is no verdict."
    verdict = source.report["verdict"]
    return f"{said}\n\nVerdict of the run: {verdict['outcome']} ({verdict['strength']}). {verdict['text']}"


def _scores(source: ExportSource) -> str:
    arms: list[Mapping[str, Any]] = source.report["arms"] if source.report else []
    if source.arm is None:
        rows = [(a["arm"], f"{a['score']['mean']:.3f}", _span(a["score"]), a["n"]) for a in arms]
        head = ("arm", "combined", "95 % interval", "questions")
        return markdown_table(head, rows) if rows else "Not measured on held-out questions."
    mine = next((a for a in arms if a["arm"] == source.arm.arm), None)
    if mine is None:
        return "Not measured on held-out questions."
    scores = {"combined": {**mine["score"], "n": mine["n"]}, **mine["scores"]}
    rows = [(name, f"{s['mean']:.3f}", _span(s), s["n"]) for name, s in scores.items()]
    averaged = len(mine["seeds"]) > 1
    said = f"\n\nMeans over {len(mine['seeds'])} seeds." if averaged else ""
    return markdown_table(("score", "mean", "95 % interval", "questions"), rows) + said


def _span(score: Mapping[str, float]) -> str:
    return f"{score['low']:.3f} to {score['high']:.3f}"


def _made_from(source: ExportSource) -> list[tuple[str, str]]:
    plan = source.plan
    rows = [("plan", f"SHA-256 {plan.digest()[:16]}")]
    if source.facts:
        base, data = source.facts["base"], source.facts["data"]
        where = f"{base['source']} {base['revision']}".strip()
        rows += [
            (
                "base model",
                f"{short_model_name(base['name'])} ({where}), fingerprint {base['fingerprint'][:16]}",
            ),
            ("licence of the base", _licence(base["license"])),
            ("method", str(source.facts["config"]["method"])),
            ("training rows", f"{data['rows']}, as tokens SHA-256 {data['sha256'][:16]}"),
            (
                "chat template",
                f"SHA-256 {base['template_sha256'][:16] or 'none of its own; a plain one is beside it'}",
            ),
        ]
    elif resolve.parse_remote(plan.model.name):
        rows.append(("model", short_model_name(plan.model.name)))
    data_used = source.report.get("data", {})
    for name, file in data_used.get("files", {}).items():
        rows.append((re.sub("_", " ", name), f"{file['name']}, SHA-256 {file['sha256'][:16]}"))
    if data_used.get("index_input"):
        rows.append(("documents and settings of the index", f"SHA-256 {data_used['index_input'][:16]}"))
    if data_used.get("split"):
        rows.append(("split of the questions", f"SHA-256 {data_used['split'][:16]}"))
    return rows


def _licence(name: str) -> str:
    return name if name != "unknown" else "unknown here: see where the base came from"
