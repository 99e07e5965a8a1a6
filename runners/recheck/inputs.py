"""What the answers of a run were made with, and what of that is different now, by content and not by file times.

:func:`measured_inputs` reads what a run recorded, :func:`present_inputs` describes the present state, :func:`find_changes`
compares the two. :func:`asking_inputs` is what an answer of an arm depends on beside its chat: two answers to the same chat
with the same asking inputs are the same, since decoding is greedy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.files import check_schema, parse_json
from runners.arms.answer_constraint import constraint_input
from runners.made_from import compare, content_digest, data_files, recorded_files
from runners.plan.arm_names import values_by_alias
from runners.plan.schema import RECORD_KEYS, Plan, plan_differences
from runners.plan.steps import EvaluateStep, PlanModel, TrainStep
from runners.resources.environment import ENVIRONMENT_EVENT, describe_environment
from runners.run_folder import RunFolder, read_run_plan

STATE = "state.json"
"""What a recheck was made with, in its folder."""
DOCUMENTS, PROMPT, EXAMPLES, MODEL = "documents", "prompt", "examples", "model"
EMBEDDER, RERANKER, SETTINGS = "embedder", "reranker", "settings"
QUESTIONS, ENVIRONMENT, PRICES = "questions", "environment", "prices"
MACHINE_KEYS = ("processor", "gpu", "python")
_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Change:
    """Something that is different from what a run was measured with."""

    kind: str
    """documents, prompt, examples, model, embedder, reranker, settings, questions, environment or prices."""
    text: str
    """What differs, in words."""
    arms: tuple[str, ...] = ()
    """The arms of the plan whose answers it can touch."""

    def to_json(self) -> dict[str, Any]:
        """Return the change as a report has it."""
        return {"kind": self.kind, "text": self.text, "arms": list(self.arms)}


@dataclass(frozen=True, slots=True)
class RunInputs:
    """What answers were made with, as far as it is known."""

    plan: Plan
    models: Mapping[str, str] = field(default_factory=dict)
    """What identifies each model (base models, embedder, reranker), by its name in the plan."""
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the data files, by their key in the plan; unknown ones are missing."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    documents: str = ""
    """Digest of the documents; "" where it is not known, or there are none."""

    def to_json(self) -> dict[str, Any]:
        """Return everything but the plan, which has a file of its own."""
        return {
            "models": dict(self.models),
            "files": dict(self.files),
            "environment": dict(self.environment),
            "documents": self.documents,
        }


def measured_inputs(run: RunFolder) -> RunInputs:
    """Return what a run, or an earlier recheck of it, was measured with; BadInput when a recheck's state is damaged."""
    plan = read_run_plan(run.path)
    file = run.path / STATE
    if file.is_file():
        stored = read_state(file)["inputs"]
        return RunInputs(
            plan, stored["models"], stored["files"], stored["environment"], str(stored["documents"])
        )
    events = run.events()
    start, environment = (
        next((e for e in reversed(events) if e.get("event") == name), dict[str, Any]())
        for name in ("run.start", ENVIRONMENT_EVENT)
    )
    models = {**(start.get("models") or {})}
    if start.get("base"):
        models[plan.model.name] = start["base"]
    return RunInputs(
        plan,
        models,
        recorded_files(run),
        {key: value for key, value in environment.items() if key not in ("event", "time")},
    )


def present_inputs(plan: Plan, models: Mapping[str, str]) -> RunInputs:
    """Return what answers would be made with now.

    Args:
        plan: the plan, with the paths of today.
        models: what identifies the models that are here, by name.
    """
    documents = content_digest(plan.data.documents)
    return RunInputs(plan, models, data_files(plan), describe_environment(), documents)


def present_models(plan: Plan, given: Sequence[str]) -> dict[str, Any]:
    """Return `model`, `models` and `teacher` of a plan with other models in their place, whatever weights they have.

    Whether the weights are others is what is to be found out: the plan's fingerprints would refuse them.

    Args:
        plan: the plan.
        given: the names of other models; of several ``ALIAS=MODEL`` each.

    Raises:
        UsageProblem: as of :func:`runners.plan.arm_names.values_by_alias`.
    """
    names = values_by_alias(given, plan.models)

    def present(alias: str, model: PlanModel) -> PlanModel:
        return model.model_copy(update={"name": names.get(alias, model.name), "fingerprint": None})

    models = {alias: present(alias, model) for alias, model in plan.models.items()}
    own = models[plan.own_aliases[-1]] if models else present("", plan.model)
    teacher = plan.teacher and plan.teacher.model_copy(update={"fingerprint": None})
    return {"model": own, "models": models, "teacher": teacher}


def read_state(file: Path) -> dict[str, Any]:
    """Read the state of a recheck; BadInput when it is damaged."""
    try:
        state = check_schema(parse_json(file.read_text("utf-8")), "recheck", file)
        _ = state["digest"], state["inputs"]["models"], state["inputs"]["files"]
        return state
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{file} is damaged: {error!r}", "remove its folder, and recheck again") from None


def find_changes(old: RunInputs, new: RunInputs) -> list[Change]:
    """Return what differs between two states, but for the documents' content, which the index compares."""
    changes = [*_prompt_changes(old, new), *_file_changes(old, new), *_model_changes(old, new)]
    models = {"model", "models", "embedder"}
    compared_apart = {*RECORD_KEYS, *models, "name", "data", "prompts", "backend", "most_usd"}
    differences = [
        key
        for key, _, _ in plan_differences(old.plan, new.plan, compared_apart)
        if not key.endswith((".reranker.name", ".model.name", ".fingerprint"))
    ]
    if old.plan.backend != new.plan.backend:
        differences.append("backend")
    if differences:
        more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        text = f"{', '.join(differences[:_SHOWN])}{more}"
        changes.append(Change(SETTINGS, text, tuple(arm.arm for arm in new.plan.arms)))
    return [*changes, *_environment_changes(old, new)]


def _prompt_changes(old: RunInputs, new: RunInputs) -> list[Change]:
    before, now = (inputs.plan.prompts.model_dump(mode="json") for inputs in (old, new))
    keys = [key for key in now if before.get(key) != now[key]]
    if not keys:
        return []
    arms = tuple(arm.arm for arm in new.plan.arms if not arm.without_model)
    return [Change(PROMPT, f"prompts.{', prompts.'.join(keys)}", arms)]


def _file_changes(old: RunInputs, new: RunInputs) -> list[Change]:
    changed, changes = compare(old.files, new.files).changed, []
    if rows := [name for name in changed if name in ("examples", "replay")]:
        using = [arm for arm in new.plan.arms if arm.learns_from_rows]
        arms = tuple(arm.arm for arm in [*using, *_routers_of(new.plan, using)])
        changes.append(Change(EXAMPLES, " and ".join(_shown_file(new.plan, name) for name in rows), arms))
    if "wordings" in changed:
        arms = tuple(arm.arm for arm in _retrieving(new.plan))
        changes.append(Change(SETTINGS, _shown_file(new.plan, "wordings"), arms))
    if asked := [name for name in changed if name not in ("examples", "replay", "wordings")]:
        changes.append(Change(QUESTIONS, " and ".join(_shown_file(new.plan, name) for name in asked)))
    return changes


def _shown_file(plan: Plan, name: str) -> str:
    return f"{getattr(plan.data, name).name} has other content"


def _routers_of(plan: Plan, arms: Sequence[EvaluateStep]) -> list[EvaluateStep]:
    """Return the routers that take answers of these arms."""
    names = {arm.arm for arm in arms}
    return [arm for arm in plan.arms if arm.route and names & {arm.route.first, arm.route.otherwise}]


def _retrieving(plan: Plan) -> list[EvaluateStep]:
    """Return the arms that search, and the routers that take answers of them."""
    searching = [arm for arm in plan.arms if arm.retrieval]
    return [*searching, *_routers_of(plan, searching)]


def _model_changes(old: RunInputs, new: RunInputs) -> list[Change]:
    changes = []
    by_models: dict[tuple[str, str], list[str]] = {}
    for arm in new.plan.arms:
        before = next((step for step in old.plan.arms if step.arm == arm.arm), None)
        if before is None or arm.without_model:
            continue
        asks = new.plan.routed(arm)[1] if arm.route else arm
        was_asked = old.plan.routed(before)[1] if before.route else before
        names = old.plan.model_of(was_asked).name, new.plan.model_of(asks).name
        if compare({"": old.models.get(names[0])}, {"": new.models.get(names[1])}).changed:
            by_models.setdefault(names, []).append(arm.arm)
    for (was, name), answering in by_models.items():
        text = f"{name} in place of {was}" if was != name else f"{name} has other weights"
        changes.append(Change(MODEL, text, tuple(answering)))
    for kind, was, now, arms in _retrieval_models(old.plan, new.plan):
        if was != now or compare({"": old.models.get(was)}, {"": new.models.get(now)}).changed:
            text = f"{now} in place of {was}" if was != now else f"{now} has other weights"
            changes.append(Change(kind, text, arms))
    return changes


def _retrieval_models(old: Plan, new: Plan) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """Return kind, old name, new name and arms of the models that search."""
    retrieving = tuple(arm.arm for arm in _retrieving(new))
    embeds = [arm for arm in new.arms if arm.retrieval or arm.embeds_texts]
    embedding = tuple(arm.arm for arm in [*embeds, *_routers_of(new, embeds)])
    rows = [(EMBEDDER, old.embedder.name, new.embedder.name, embedding)] if embedding else []
    rerankers = [plan.index.reranker if plan.index else None for plan in (old, new)]
    if rerankers[0] or rerankers[1]:
        names = [reranker.name if reranker else "none" for reranker in rerankers]
        rows.append((RERANKER, names[0], names[1], retrieving))
    return rows


def _environment_changes(old: RunInputs, new: RunInputs) -> list[Change]:
    """Return what differs of library versions and machine: noted, never a reason to ask again."""
    if not old.environment:
        return []
    packages = [dict(inputs.environment.get("packages") or {}) for inputs in (old, new)]
    texts = [
        f"{name} {packages[0][name]} → {packages[1][name]}"
        for name in packages[0]
        if name in packages[1] and packages[0][name] != packages[1][name]
    ]
    texts += [
        f"{key} {old.environment[key]} → {new.environment[key]}"
        for key in MACHINE_KEYS
        if key in old.environment and old.environment[key] != new.environment.get(key)
    ]
    return [Change(ENVIRONMENT, "; ".join(texts))] if texts else []


def asking_inputs(inputs: RunInputs, step: EvaluateStep) -> dict[str, Any]:
    """Return what an arm's answer to a chat depends on, but for its weights and the longest answer.

    The model, how it is held and asked, and what its answers are held to; of an arm without one its embedder, examples and
    checks; of a router those of its two arms. Values that are not known are None.
    """
    plan = inputs.plan
    if step.route:
        parts = [asking_inputs(inputs, part) for part in plan.routed(step)]
        return {f"{n} {key}": value for n, part in enumerate(parts) for key, value in part.items()}
    settings = plan.model_of(step)
    made_from: dict[str, Any] = {
        "model": inputs.models.get(settings.name),
        "quantization": settings.quantization,
        "kernels": plan.kernels,
        "thinking": plan.thinking.model_dump(),
        "labels": step.labels,
        "classifier": step.classifier,
        **({"nearest_reply": True} if step.nearest_reply else {}),
        "constraint": constraint_input(plan, step),
        "backend": server.entry if (server := plan.servers.model_of(step)) else "",
    }
    if step.without_model or step.labels == "scored":
        made_from["checks"] = [check.model_dump(mode="json") for check in plan.checks]
    if step.without_model:
        del made_from["model"]
        made_from["embedder"] = inputs.models.get(plan.embedder.name)
        made_from["examples"] = inputs.files.get("examples")
    return made_from


def trained_again(old: RunInputs, new: RunInputs) -> list[TrainStep]:
    """Return the train steps whose weights no longer are what the plan, its model and its examples make.

    Changed documents or instructions train nothing again: the weights that are in use are asked with them.
    """
    files = compare(old.files, new.files).changed
    examples, replay = "examples" in files, "replay" in files
    before = {step.arm: step for step in old.plan.steps if isinstance(step, TrainStep)}
    again: list[TrainStep] = []
    for step in (step for step in new.plan.steps if isinstance(step, TrainStep)):
        known = before.get(step.arm)
        same = known is not None and known.model_dump(exclude={"reasons"}) == step.model_dump(
            exclude={"reasons"}
        )
        was = old.models.get(old.plan.model_of(known).name) if known else None
        other_model = compare({"": was}, {"": new.models.get(new.plan.model_of(step).name)}).changed
        starts_anew = any(step.start_from == other.arm for other in again)
        if not same or examples or other_model or (replay and step.replay) or starts_anew:
            again.append(step)
    return again
