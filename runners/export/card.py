"""The card (README.md) of an export: what it is, how it scored, what it was made from, how to use it.

Cards hold no path of the machine that made them: paths are relative to the export's folder, and a model or file that the
plan names by its path is named by the last part of it. `export_card` writes the card, `export_facts` the manifest's facts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from runners.data import personal_data
from runners.data.teachers import recorded_teachers
from runners.export.job import ExportedFiles, ExportJob
from runners.export.source import ExportSource
from runners.models import endpoint, registry, resolve
from runners.models.cards import markdown_table, teachers_section, terms_section
from runners.plan.steps import TrainStep
from runners.report.records import Estimate
from runners.report.trial_report import arm_named
from runners.runs.data_notes import DATA_NOTES, teacher_lines

LIBRARY_OF_TARGET = {
    "peft": "peft",
    "merged": "transformers",
    "gguf": "gguf",
    "ollama": "gguf",
    "vllm": "peft",
}
"""Model hubs' `library_name` of each target with weights."""


def export_card(job: ExportJob, files: ExportedFiles) -> str:
    """Return the text of the export's README.md; raise `BadInput` when it would hold a key or password."""
    source = job.source
    parts = [
        _front_matter(job),
        f"# {source.plan.name}: {job.target.makes}",
        _summary(source),
        "## How to use it\n\n" + files.usage.strip(),
        *(["## Worth knowing\n\n" + "\n".join(f"- {note}" for note in files.notes)] if files.notes else []),
        "## Scores\n\n" + _scores(source),
        "## Made from\n\n"
        + markdown_table(("what", "value"), [*_made_from(source), *files.made_from.items()]),
        "## Checked when it was made\n\n"
        + markdown_table(("what", "found"), [(k, checked_value(v)) for k, v in files.checked.items()]),
        *(section for license_name in base_licenses(job) for section in terms_section(license_name)),
        *teachers_section(teacher_notes(job, files)),
        "`manifest.json` has the SHA-256 of every other file. Written by tunewise export.",
    ]
    text = without_paths(source, "\n\n".join(part for part in parts if part) + "\n")
    refuse_secrets(text, "the card")
    return text


def base_licenses(job: ExportJob) -> dict[str, str]:
    """Return the licences of the models that the exported weights were tuned from, each with the name of one of them."""
    source = job.source
    if job.target.needs == "weights":
        return {str(source.weights_manifest["base"]["license"]): source.model.name}
    if job.target.name != "bundle":
        return {}
    plan = source.plan
    tuned = [plan.model_of(step).name for step in plan.steps if isinstance(step, TrainStep)]
    return {known.license: name for name in tuned if (known := registry.find_known_model(name))}


def teacher_notes(job: ExportJob, files: ExportedFiles) -> list[str]:
    """Return a sentence for each model that wrote rows which are exported, or which exported weights were trained on.

    An index has none but where its embedder was tuned on the rows.
    """
    source = job.source
    if job.target.needs == "weights":
        return [teacher.line for teacher in recorded_teachers(source.weights_folder)]
    if job.target.needs == "rows":
        return [teacher.line for teacher in files.teachers]
    if job.target.name == "index" and source.plan.embedder_step is None:
        return []
    events = (event for event in reversed(source.run.events()) if event.get("event") == DATA_NOTES)
    lines = list(teacher_lines(next(events, {})))
    if (
        job.target.needs == "run"
    ):  # adapters that were continued, and replay rows, have teachers that examples lack
        for step in (step for step in source.plan.steps if isinstance(step, TrainStep)):
            for teacher in recorded_teachers(source.run.adapter(step.arm, step.seeds[0])):
                if not any(teacher.title in line and teacher.license in line for line in lines):
                    lines.append(f"{step.arm}: {teacher.line}")
    return lines


def export_facts(job: ExportJob) -> dict[str, Any]:
    """Return the manifest's facts of an export: target, run, arm, seed and base model, without paths."""
    source = job.source
    body: dict[str, Any] = {"to": job.target.name, "run": source.plan.name, "plan": source.plan.digest()}
    if source.arm:
        body |= {"arm": source.arm.arm, "seed": source.seed}
    if source.weights_manifest:
        base = source.weights_manifest["base"]
        body["base"] = {**base, "name": short_model_name(base["name"])}
        if teachers := source.weights_manifest["data"].get("teachers"):
            body["teachers"] = teachers
    return body


def short_model_name(name: str) -> str:
    """Return a model's name: the last part of a path, the model and host of an endpoint."""
    if remote := resolve.parse_remote(name):
        return f"{remote.name} at {endpoint.endpoint_host(remote.url)}"
    return (
        Path(name).name
        if registry.find_known_model(name) is None and Path(name).expanduser().is_absolute()
        else name
    )


def without_paths(source: ExportSource, text: str) -> str:
    """Return a text in which the paths that the plan or the base names are cut to their last part."""
    plan = source.plan
    named = [*(model.name for model in plan.base_models), plan.embedder.name]
    named += [plan.index.reranker.name] if plan.index and plan.index.reranker else []
    named += [source.weights_manifest["base"]["name"]] if source.weights_manifest else []
    short: dict[str, str] = {name: short_model_name(name) for name in named if name != short_model_name(name)}
    paths = [p for p in plan.data.model_dump().values() if isinstance(p, Path) and p.is_absolute()]
    short |= {str(path): path.name for path in (*paths, source.run.path.absolute())}
    for long in sorted(short, key=len, reverse=True):  # a path may begin with another
        text = text.replace(long, short[long])
    return text


def refuse_secrets(text: str, where: str) -> None:
    """Raise `BadInput` when a text for others holds a key or password; the message does not repeat it."""
    for kind in personal_data.PERSONAL_DATA_KINDS:
        if kind.secret and any(map(kind.real, kind.shape.finditer(text))):
            raise BadInput(
                f"{where} would contain a secret: {kind.name}", "take it out of the plan and its prompts"
            )


def checked_value(value: Any) -> str:
    """Format a checked value for the card."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _front_matter(job: ExportJob) -> str:
    """Return the YAML front matter that model hubs read; "" for exports without weights."""
    if job.target.needs != "weights":
        return ""
    base = job.source.weights_manifest["base"]
    front: dict[str, Any] = {
        "base_model": short_model_name(base["name"]),
        "library_name": LIBRARY_OF_TARGET[job.target.name],
        "license": base["license"],
        "pipeline_tag": "text-generation",
    }
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()]
    return "---\n" + "\n".join(lines) + "\ntags: [tunewise]\n---"


def _summary(source: ExportSource) -> str:
    arm = source.arm
    if arm is None:
        models = source.plan.models.values() or (source.plan.model,)
        names = ", ".join(dict.fromkeys(short_model_name(model.name) for model in models))
        summary = f"From the run of the plan {source.plan.name}, made for {names}."
    else:
        seed = f", seed {source.seed}" if source.seed is not None else ""
        summary = f"The arm {arm.arm}{seed} of the plan {source.plan.name}, on {short_model_name(source.model.name)}."
    if not source.report:
        return f"{summary} The run was not finished: there is no verdict."
    verdict = source.report.verdict
    return f"{summary}\n\nVerdict of the run: {verdict.outcome} ({verdict.strength}). {verdict.text}"


def _scores(source: ExportSource) -> str:
    arms = source.report.arms if source.report else ()
    if source.arm is None:
        rows = [(a.arm, a.right_text, f"{a.score.mean:.3f}", _interval(a.score), a.n) for a in arms]
        header = ("arm", "right", "combined", "95 % interval", "questions")
        return markdown_table(header, rows) if rows else "Not measured on held-out questions."
    row = arm_named(arms, source.arm.arm)
    if row is None:
        return "Not measured on held-out questions."
    score_rows = [("combined", f"{row.score.mean:.3f}", _interval(row.score), row.n)]
    score_rows += [(name, f"{s.mean:.3f}", _interval(s), s.n) for name, s in row.scores.items()]
    note = f"\n\nMeans over {len(row.seeds)} seeds." if len(row.seeds) > 1 else ""
    right = f"Right answers: {row.right_text}.\n\n" if row.right else ""
    return right + markdown_table(("score", "mean", "95 % interval", "questions"), score_rows) + note


def _interval(score: Estimate) -> str:
    return f"{score.low:.3f} to {score.high:.3f}"


def _made_from(source: ExportSource) -> list[tuple[str, str]]:
    plan = source.plan
    rows = [("plan", f"SHA-256 {plan.digest()[:16]}")]
    if source.weights_manifest:
        base, data = source.weights_manifest["base"], source.weights_manifest["data"]
        origin = f"{base['source']} {base['revision']}".strip()
        rows += [
            (
                "base model",
                f"{short_model_name(base['name'])} ({origin}), fingerprint {base['fingerprint'][:16]}",
            ),
            ("licence of the base", _licence(base["license"])),
            ("method", str(source.weights_manifest["config"]["method"])),
            ("training rows", f"{data['rows']}, as tokens SHA-256 {data['sha256'][:16]}"),
            (
                "chat template",
                f"SHA-256 {base['template_sha256'][:16] or 'none of its own; a plain one is in this folder'}",
            ),
        ]
    elif resolve.parse_remote(source.model.name):
        rows.append(("model", short_model_name(source.model.name)))
    if source.report:
        data = source.report.data
        for name, file in data.files.items():
            rows.append((name.replace("_", " "), f"{file['name']}, SHA-256 {file['sha256'][:16]}"))
        if data.index_input:
            rows.append(("documents and settings of the index", f"SHA-256 {data.index_input[:16]}"))
        if data.split:
            rows.append(("split of the questions", f"SHA-256 {data.split[:16]}"))
    return rows


def _licence(name: str) -> str:
    return name if name != "unknown" else "unknown here: see where the base came from"
