"""The flags of `tunewise plan` and `tunewise probe`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from advisor import completion
from advisor.flags import options
from advisor.flags.records import flag


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """A situation to advise on, and what to write."""

    answers: Annotated[Path | None, flag("Use the answers of this file (YAML or JSON), or of a plan.")] = None
    sets: Annotated[
        list[str] | None,
        flag(
            "One answer: key=value (the ids of the questionnaire); repeatable.",
            "--set",
            autocompletion=completion.complete_answers,
        ),
    ] = None
    documents: options.Documents = None
    examples: Annotated[Path | None, flag("Examples of good answers, for fine-tuning.")] = None
    columns: options.Columns = None
    questions: Annotated[Path | None, flag("Test questions with known answers, not used for tuning.")] = None
    wordings: Annotated[
        Path | None,
        flag(
            "Questions of a log, without answers (.txt, .jsonl, .csv): how people ask; stored beside the plan, masked."
        ),
    ] = None
    prompt: options.Prompt = None
    model: options.Model = None
    models: Annotated[
        list[str] | None,
        flag(
            "A model to compare, as ALIAS=NAME; repeatable. The same model at another precision is written in the plan: "
            "models.ALIAS.quantization."
        ),
    ] = None
    minutes: Annotated[float | None, flag("The most minutes that the trial of several models may take.")] = (
        None
    )
    usd: Annotated[
        float | None, flag("The most USD that the answers of hosted models may cost in that trial.")
    ] = None
    embedder: Annotated[
        str | None,
        flag("The embedder: a known name or a folder; by default it is chosen by the language of the texts."),
    ] = None
    out: Annotated[Path | None, flag("Where to write the plan (default: plan.yaml).")] = None
    yes: Annotated[bool, flag("Ask nothing; what is unknown stays unknown.", "--yes", "-y")] = False
    probe: Annotated[
        bool,
        flag(
            "Measure the base model on a few dev questions first, as tunewise probe does, and plan from that.",
            "--probe",
        ),
    ] = False
    tune_retriever: Annotated[
        bool,
        flag(
            "Also tune the embedder on the examples and measure it as the arm rag-tuned (needs the extra retriever).",
            "--tune-retriever",
        ),
    ] = False
    profile: Annotated[
        str | None,
        flag(
            "Use the answers of a saved profile; see --profiles.",
            autocompletion=completion.complete_profiles,
        ),
    ] = None
    save: Annotated[str | None, flag("Save your answers as a profile of this name.")] = None
    profiles: Annotated[bool, flag("List the saved profiles and stop.", "--profiles")] = False
    accept_license: options.AcceptLicense = None
    allow_hub: options.AllowHub = False
    record: Annotated[Path | None, flag("Write a one-page decision record (Markdown) here.")] = None
    as_json: Annotated[bool, flag("Print the recommendation as JSON on stdout.", "--json")] = False
    schema: Annotated[bool, flag("Print the plan's JSON Schema and stop.", "--schema")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRequest:
    """A situation whose base model is measured."""

    questions: Annotated[
        Path | None,
        flag("Test questions with known answers; only the third for choices (dev) is asked."),
    ] = None
    documents: options.Documents = None
    examples: Annotated[
        Path | None,
        flag("Examples of good answers: for style, and whether a prompt is good enough."),
    ] = None
    columns: options.Columns = None
    prompt: options.Prompt = None
    model: options.Model = None
    answers: Annotated[Path | None, flag("Use the answers of this file, or of a plan.")] = None
    sets: Annotated[
        list[str] | None,
        flag("One answer: key=value; repeatable.", "--set", autocompletion=completion.complete_answers),
    ] = None
    out: Annotated[Path, flag("Where to write the answers, with those that were measured.")] = Path(
        "probe.yaml"
    )
    limit: Annotated[int, flag("Dev questions to ask.", min=1)] = 30
    as_json: Annotated[bool, flag("Print what was found as JSON.", "--json")] = False


def answers_of(flags: PlanRequest | ProbeRequest) -> dict[str, Path | str | float | None]:
    """Return the flags that are answers to the question of the same id."""
    several: dict[str, Path | str | float | None] = {}
    if isinstance(flags, PlanRequest):
        models = ", ".join(flags.models) if flags.models else None
        several = {"models": models, "minutes": flags.minutes, "usd": flags.usd}
    return several | {
        "documents": flags.documents,
        "examples": flags.examples,
        "columns": flags.columns,
        "questions": flags.questions,
        "prompt": flags.prompt,
        "model": flags.model,
    }
