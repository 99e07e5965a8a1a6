"""The models that a plan names: those that it compares, by their aliases, and its teacher.

A teacher is a model whose replies others may be tuned on. Its arms are answered like all others. Where it is none of the
models compared it is measured for reference: its arms have the alias :data:`TEACHER`, and none of them is the arm to use.
Where ``teacher`` is an alias of ``models`` it is one of those compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from runners.plan.arm_names import arm_name, split_arm

if TYPE_CHECKING:
    from runners.plan.schema import Plan
    from runners.plan.steps import JudgeModel, PlanModel

TEACHER = "teacher"
"""The alias of a teacher that is measured for reference."""


def model_entry(value: Any) -> Any:
    """Return a name alone as a model; anything else as it is."""
    return {"name": value} if isinstance(value, str) else value


def model_entries(value: Any) -> Any:
    """Return the entries of `models` with a name alone as a model; anything else as it is."""
    if not isinstance(value, dict):
        return value
    return {alias: model_entry(model) for alias, model in value.items()}


def with_implied_parts(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a plan with the model and the arms that `models` and `teacher` imply."""
    values = _with_teacher_arms(values)
    if "model" in values or not isinstance(values.get("models"), dict):
        return values
    first = next(iter(model_entries(values["models"]).values()), None)
    return values if first is None else {**values, "model": first}


def check_teacher(plan: Plan) -> None:
    """Raise ValueError for a teacher that is the plan's only model, or whose arms are to be beaten though not compared."""
    asked_models(plan.models, plan.teacher)
    if plan.teacher and not plan.models and _same(plan.teacher, plan.model):
        raise ValueError(f"teacher: {plan.teacher.name} is the plan's model itself: name another one")
    if wanted := set(plan.gate.must_beat) & set(reference_arms(plan)):
        name = min(wanted)
        raise ValueError(
            f"gate.must_beat: {name} is only a reference: add the teacher to models to compare it"
        )


def asked_models(models: Mapping[str, PlanModel], teacher: PlanModel | None) -> Mapping[str, PlanModel]:
    """Return the models that arms may name: those compared, and a teacher that is none of them.

    Raises:
        ValueError: one of them has the teacher's alias, or is the same model.
    """
    if teacher is None or teacher.name in models:
        return models
    if TEACHER in models:
        raise ValueError(f"models: {TEACHER} is the alias of the plan's teacher: choose another for this one")
    if same := [alias for alias, model in models.items() if _same(model, teacher)]:
        raise ValueError(f"teacher: {teacher.name} is one of models: name its alias, teacher: {same[0]}")
    return {**models, TEACHER: teacher}


def teacher_arms(plan: Plan) -> tuple[str, ...]:
    """Return the arms that a plan's teacher answers; () without one."""
    alias = _alias(plan.teacher.name, plan.models) if plan.teacher else ""
    return tuple(step.arm for step in plan.arms if alias and split_arm(step.arm)[1] == alias)


def reference_arms(plan: Plan) -> tuple[str, ...]:
    """Return the arms that are measured and never used: those of a teacher that is none of the models compared."""
    return () if plan.teacher and plan.teacher.name in plan.models else teacher_arms(plan)


def local_judge(plan: Plan) -> tuple[JudgeModel, ...]:
    """Return the plan's judge where it is a model of this machine; () for an endpoint and without one."""
    return (plan.judge,) if plan.judge and not plan.judge.name.startswith("openai:") else ()


def _same(one: PlanModel, other: PlanModel) -> bool:
    return (one.name, one.quantization) == (other.name, other.quantization)


def _alias(teacher: str, models: Mapping[str, object]) -> str:
    return teacher if teacher in models else TEACHER


def _with_teacher_arms(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a plan with arms of its teacher, prompted and with passages, where no step is one."""
    teacher, steps = model_entry(values.get("teacher")), values.get("steps")
    name = teacher.get("name") if isinstance(teacher, dict) else None
    if not isinstance(name, str) or not isinstance(steps, list | tuple):
        return values
    models = values.get("models")
    alias = _alias(name, models if isinstance(models, dict) else {})
    mappings = [step for step in steps if isinstance(step, dict)]
    if any(split_arm(str(step.get("arm", "")))[1] == alias for step in mappings):
        return values
    arms: list[dict[str, Any]] = [{"kind": "evaluate", "arm": arm_name("prompting", alias)}]
    if any(step.get("kind") == "index" for step in mappings):
        arms.append({"kind": "evaluate", "arm": arm_name("rag", alias), "retrieval": True})
    return {**values, "steps": [*steps, *arms]}
