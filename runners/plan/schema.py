"""The plan: everything that a run does, as YAML that a person can edit.

The advisor writes it, `tunewise run` executes it, and nothing else decides anything in between. Every key changes
something; unknown keys are refused with the closest known one. :func:`read_plan` and
:func:`write_plan` read and write files, :func:`plan_differences` compares two plans key by key, and :func:`with_seeds` asks
for several training runs of each arm.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from rag import plugins
from rag.errors import BadInput, UsageProblem
from rag.files import canonical_json, check_schema, older_file, sha256_text, write_text
from runners.data.refusals import is_refusal
from runners.plan.arm_names import ALIAS, check_arm_name, check_models, method_of, split_arm
from runners.plan.backend import Backend, check_backend_arms, entry_list, parse_backend
from runners.plan.checks import StyleCheck
from runners.plan.data import PATH_KEYS, PlanData, Prompts
from runners.plan.forecast import read_forecast, write_forecast
from runners.plan.gate import PlanGate, RefusalSettings
from runners.plan.named_models import (
    asked_models,
    check_teacher,
    model_entries,
    model_entry,
    with_implied_parts,
)
from runners.plan.plan_source import PlanSource, explain_problems, read_source
from runners.plan.plan_text import plan_text
from runners.plan.score_names import SCORE_BY_NAME
from runners.plan.steps import (
    NO_QUANTIZATION,
    EmbedderStep,
    EvaluateStep,
    Forgetting,
    IndexStep,
    JudgeModel,
    LookupLimits,
    PlanModel,
    Route,
    StrictModel,
    Thinking,
    TrainStep,
    misplaced_route,
)
from runners.plan.train_config import TUNING_METHODS, Parallelism, implied, switch_word

METHODS: tuple[str, ...] = (
    *("prompting", "few-shot", "nearest-reply", "classifier", "router"),
    *("long-context", "rag", "agentic-search", *TUNING_METHODS, "hybrid"),
)
"""The built-in methods, simplest first."""
SCORES: tuple[str, ...] = tuple(SCORE_BY_NAME)
"""Names that `weights` may hold."""
EMBEDDER = "all-minilm-l6-v2"
"""The embedder of a plan that names none."""
RECORD_KEYS = frozenset({"answers", "predicted", "weight_reasons", "reasons"})
"""Keys that only record something (free disk space, for one, changes by the hour): a plan that differs in
them alone does the same. ``reasons`` is a key of train steps and of ``refusal``."""
Difference = tuple[str, Any, Any]
"""A dotted key and its values in the first and the second plan; None where a plan has no such key."""


def plugin_methods() -> tuple[str, ...]:
    """Return the names of the methods that installed plug-ins add, without importing the plug-ins."""
    return tuple(plugin.name for plugin in plugins.declared_plugins() if plugin.group == plugins.METHODS)


def _check_method(name: str) -> str:
    """Return the name; ValueError when its method is neither a built-in one nor one that a plug-in adds."""
    if (method := method_of(name)) not in METHODS and method not in (added := plugin_methods()):
        raise ValueError(f"no method has this name; there are {', '.join((*METHODS, *added))}")
    return name


def _method_schema(schema: dict[str, Any]) -> None:
    names = [*METHODS, *plugin_methods()]
    schema["anyOf"] = [{"enum": names}, {"pattern": f"^({'|'.join(names)})@{ALIAS.pattern}$"}]


Method = Annotated[str, AfterValidator(_check_method)]


class RecordedAnswer(StrictModel):
    """One answer to the questionnaire and where it came from."""

    value: Any = Field(description="What was answered; null is unknown.")
    source: str = Field(
        description="asked, flag, file, config (your settings), detected, counted, probed or default."
    )
    note: str = Field("", description="How a detected or counted value was found.")


ArmStep = TrainStep | EvaluateStep
Step = Annotated[IndexStep | EmbedderStep | ArmStep, Field(discriminator="kind")]


class Plan(StrictModel):
    """Everything a run does, in the order it does it."""

    schema_version: Literal[1] = Field(1, alias="schema")
    name: str = Field(
        min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Names the run folder."
    )
    choice: Method = Field(
        description="The recommended arm: a method, with several models METHOD@ALIAS. The verdict confirms or overturns it.",
        json_schema_extra=_method_schema,
    )
    model: PlanModel
    models: Annotated[dict[str, PlanModel], BeforeValidator(model_entries)] = implied(
        {},
        description="Models that are compared, by a short alias: names, or mappings as of `model`, which is one of them and "
        "need not be given: then it is the first.",
    )
    teacher: Annotated[PlanModel | None, BeforeValidator(model_entry)] = implied(
        None,
        description="A model whose replies others may be tuned on, asked the same questions for reference: a name, or a "
        "mapping as of `model`. Its arms METHOD@teacher, added where no step has one, are never the arm to use. An alias of "
        "`models` names one of those compared, whose arms can be.",
    )
    most_usd: float | None = implied(
        None,
        gt=0,
        description="Most USD that the requests of a run may cost, by the prices in `models`; arms that are not finished "
        "then can be with --resume and a higher limit. null is no limit.",
    )
    embedder: PlanModel = PlanModel(name=EMBEDDER)
    data: PlanData
    prompts: Prompts = Prompts()
    steps: tuple[Step, ...]
    checks: tuple[StyleCheck, ...] = ()
    weights: dict[Literal[SCORES], float] = Field(  # type: ignore[valid-type]
        description="Weights by which the combined score grades right answers (a wrong one scores 0), fixed before any "
        "arm runs; docs/how-it-measures.md says what each is."
    )
    weight_reasons: dict[str, str] = Field(
        default_factory=dict,
        description="Why each score weighs what it does, shown with the verdict: read from the comment behind a weight.",
    )
    judge: JudgeModel | None = Field(
        None,
        description="A model that compares the choice with every other arm after the trial; it decides nothing unless it "
        "`counts`.",
    )
    gate: PlanGate = PlanGate()
    refusal: RefusalSettings = implied(RefusalSettings())
    forgetting: Forgetting = Forgetting()
    kernels: Literal["auto", "plain"] = implied(
        "auto",
        description="auto: this project's own training kernels and decoding where they give the same result; plain: "
        "the layers, the loss and the generation of transformers and PEFT, as a reference.",
    )
    parallel: Parallelism = implied(
        "auto",
        description="How several processes share a training (tunewise run --launcher): ddp, a whole copy in each; fsdp, "
        "weights and state sharded; auto, ddp where it fits one device.",
    )
    constrain: Annotated[Literal["auto", "off"], BeforeValidator(switch_word)] = implied(
        "auto",
        description="auto: every arm that generates is constrained to the labels, the JSON or the last line that the checks "
        "ask for, token by token; off: decoding is free.",
    )
    backend: Annotated[tuple[str, ...], BeforeValidator(entry_list)] = implied(
        (),
        description="Servers that generate the answers in place of this process, `openai:NAME@URL[,URL...]`; arms with "
        "weights are asked by the weights' name, or as `ARM=openai:NAME@URL` says. Training stays here.",
    )
    max_new_tokens: int = Field(64, ge=1, le=4096, description="Longest answer, the same for every arm.")
    thinking: Thinking = implied(Thinking())
    seed: int = Field(0, ge=0)
    answers: dict[str, RecordedAnswer] = Field(default_factory=dict)
    predicted: dict[str, Any] = Field(
        default_factory=dict,
        description="The recommendation that the trial tests: read from NAME.forecast.json beside NAME.yaml.",
    )

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _implied_parts(cls, values: Any) -> Any:
        return with_implied_parts(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _consistent(self) -> Plan:
        check_models(self.models, self.model)
        check_teacher(self)
        check_arm_name(self.choice, self.models)
        trained: set[str] = set()
        has_index = has_embedder = False
        for number, step in enumerate(self.steps):
            key = f"steps[{number}]"
            if isinstance(step, ArmStep):
                self._check_model_of(step, f"{key}.arm")
            if isinstance(step, IndexStep):
                has_index = True
            elif isinstance(step, EmbedderStep):
                if problem := step.misplaced(has_index, has_embedder, bool(self.data.examples)):
                    raise ValueError(f"{key}: {problem}")
                has_embedder = True
            elif isinstance(step, TrainStep):
                if step.start_from and step.start_from not in trained:
                    raise ValueError(
                        f"{key}.start_from: no earlier train step is for arm {step.start_from!r}"
                    )
                if step.rows == "retrieval" and not has_index:
                    raise ValueError(f"{key}: retrieval rows need an index step before it")
                if not self.data.examples:
                    raise ValueError(f"{key}: training needs data.examples")
                if step.replay and not self.data.replay:
                    raise ValueError(f"{key}.replay: replay rows need data.replay")
                trained.add(step.arm)
            else:
                if step.weights and step.model:
                    raise ValueError(f"{key}.model: weights belong to the plan's model, not to another")
                if step.weights and step.weights not in trained:
                    raise ValueError(f"{key}.weights: no earlier train step is for arm {step.weights!r}")
                if problem := step.misplaced(has_index, self.index is not None, bool(self.data.documents)):
                    raise ValueError(f"{key}: {problem}")
                if step.retriever == "tuned" and not has_embedder:
                    raise ValueError(f"{key}.retriever: tuned needs an embedder step before it")
                if step.labels == "scored" and not any(c.kind == "labels" and c.value for c in self.checks):
                    raise ValueError(f"{key}.labels: scored needs a check of kind labels that lists them")
                if (step.classifier or step.shots) and not self.data.examples:
                    raise ValueError(f"{key}: an arm that learns from or shows examples needs data.examples")
                if step.nearest_reply and not (self.data.examples or self.data.documents):
                    raise ValueError(
                        f"{key}: nearest replies need data.examples, or documents with questions"
                    )
                if step.route and (problem := misplaced_route(step.route, self.steps[:number])):
                    raise ValueError(f"{key}.route.{problem}")
        if has_index and not self.data.documents:
            raise ValueError("an index step needs data.documents")
        if not self.weights or sum(self.weights.values()) <= 0 or min(self.weights.values()) < 0:
            raise ValueError("weights must be zero or more, and not all zero")
        if self.embedder.quantization != NO_QUANTIZATION:
            raise ValueError("embedder.quantization: an embedder is never quantised")
        check_backend_arms(self.backend, [s.arm for s in self.steps if isinstance(s, ArmStep)])
        return self

    def _check_model_of(self, step: ArmStep, key: str) -> None:
        """Raise ValueError where the models of an arm's step and of its weights are not the same, or not known."""
        try:
            known = self.models if isinstance(step, TrainStep) else asked_models(self.models, self.teacher)
            check_arm_name(step.arm, known)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
        if isinstance(step, EvaluateStep) and step.model and split_arm(step.arm)[1]:
            raise ValueError(f"{key}: {step.arm} has the model of its alias, and model names another")
        start = step.weights if isinstance(step, EvaluateStep) else step.start_from
        if start and split_arm(start)[1] != split_arm(step.arm)[1]:
            raise ValueError(
                f"{key}: {step.arm} cannot have the weights of {start}, which are of another model"
            )

    def model_of(self, step: ArmStep) -> PlanModel:
        """The model that a step trains, or that its arm answers with."""
        if isinstance(step, EvaluateStep) and step.model:
            return step.model
        _, alias = split_arm(step.arm)
        return asked_models(self.models, self.teacher)[alias] if alias else self.model

    @property
    def base_models(self) -> tuple[PlanModel, ...]:
        """The plan's own model, then the others that its steps train or ask, each once."""
        asked = (self.model_of(step) for step in self.steps if isinstance(step, ArmStep))
        return tuple(dict.fromkeys((self.model, *asked)))

    @property
    def servers(self) -> Backend:
        """The plan's backend; an empty one where everything is generated in this process."""
        return parse_backend(self.backend, self.own_aliases)

    @property
    def own_aliases(self) -> tuple[str, ...]:
        """What the arms of the plan's own model may have behind the `@`: nothing, or its alias."""
        return ("", *(alias for alias, model in self.models.items() if model == self.model))

    @property
    def said_first(self) -> tuple[str, ...]:
        """What the advice says before all reasons, such as that the documents do not hold the answers."""
        return tuple(str(finding["text"]) for finding in self.predicted.get("said_first", ()))

    @property
    def arms(self) -> tuple[EvaluateStep, ...]:
        """The evaluate steps, in order."""
        return tuple(step for step in self.steps if isinstance(step, EvaluateStep))

    @property
    def index(self) -> IndexStep | None:
        """The index step, when there is one."""
        return next((s for s in self.steps if isinstance(s, IndexStep)), None)

    @property
    def embedder_step(self) -> EmbedderStep | None:
        """The step that tunes the embedder, when there is one."""
        return next((s for s in self.steps if isinstance(s, EmbedderStep)), None)

    def refuses(self, answer: str) -> bool:
        """Whether an answer refuses: the one decision for answers, scores, the probe and the server.

        Without citation marks. An answer that is one of the labels of a check answers, unless it is one of the plan's
        refusals word for word.
        """
        labels = {str(label).strip() for c in self.checks if c.kind == "labels" for label in c.value}
        text = answer.strip()
        if (text in labels or text.rstrip(".") in labels) and text not in self.prompts.refusals:
            return False
        return is_refusal(answer, self.prompts.refusals, self.prompts.formulas)

    def routed(self, step: EvaluateStep) -> tuple[EvaluateStep, EvaluateStep]:
        """Return the two arms of a router: the one that answers where it is sure, and the other one."""
        assert step.route is not None
        by_name = {arm.arm: arm for arm in self.arms}
        return by_name[step.route.first], by_name[step.route.otherwise]

    def with_routed(self, arms: Collection[EvaluateStep]) -> tuple[EvaluateStep, ...]:
        """Return arms with those that routers among them take their answers from, in the plan's order."""
        names = {arm.arm for arm in arms}
        names |= {part.arm for arm in arms if arm.route for part in self.routed(arm)}
        return tuple(step for step in self.arms if step.arm in names)

    def train_step(self, arm: str) -> TrainStep:
        """The train step of an arm; KeyError when there is none."""
        for step in self.steps:
            if isinstance(step, TrainStep) and step.arm == arm:
                return step
        raise KeyError(arm)

    def digest(self) -> str:
        """SHA-256 of the plan's values, independent of the YAML's layout."""
        # the digests that runs of 0.2.0 recorded include a key that plans no longer have
        values = {"house_style": False, **self.model_dump(mode="json", by_alias=True)}
        return sha256_text(canonical_json(values))

    def work_digest(self) -> str:
        """SHA-256 of what the plan does: without its name, what it records, and the places of its files."""
        values = self.model_dump(mode="json", by_alias=True, exclude={*RECORD_KEYS, "name"})
        values["data"] = {key: value for key, value in values["data"].items() if key not in PATH_KEYS}
        values["forgetting"].pop("file")
        for part in (*values["steps"], values.get("refusal", {})):
            part.pop("reasons", None)
        return sha256_text(canonical_json(values))


def step_name(step: Step) -> str:
    """Return a step's name in events and for --only: index, embedder, train:ARM or evaluate:ARM."""
    return f"{step.kind}:{step.arm}" if isinstance(step, ArmStep) else step.kind


PLAN_MODELS = (
    Plan,
    PlanModel,
    JudgeModel,
    PlanData,
    Prompts,
    IndexStep,
    EmbedderStep,
    TrainStep,
    EvaluateStep,
    LookupLimits,
    Route,
    StyleCheck,
    PlanGate,
    RefusalSettings,
    RecordedAnswer,
    Forgetting,
    Thinking,
)
"""All models that a plan is made of."""


def read_plan(path: Path | str) -> Plan:
    """Read a plan from a YAML file; relative data paths become absolute, from the plan's own folder.

    The prediction is read from the plan's forecast file.

    Raises:
        BadInput: the file cannot be read, or a key is wrong; the message names the line and the key, and the closest
            known key when it is unknown.
    """
    plan = read_plan_file(Path(path))
    folder = Path(path).resolve().parent
    prompts = plan.forgetting.file and {"file": folder / plan.forgetting.file}
    changed = {"forgetting": plan.forgetting.model_copy(update=prompts)} if prompts else {}
    return plan.model_copy(update={"data": _with_absolute_paths(plan.data, folder), **changed})


def read_plan_file(path: Path) -> Plan:
    """Read a plan with its forecast as :func:`read_plan` does, but leave its paths as they are."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise BadInput(f"no plan at {path}", "make one with: tunewise plan") from None
    except IsADirectoryError:
        raise BadInput(f"{path} is a folder, not a plan", "name the plan.yaml inside it") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 text (byte {error.start})", "save it as UTF-8") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}", "check the file") from None
    source = read_source(text, path)
    if "predicted" in source.values or "house_style" in source.values:  # keys of plans before 0.2.0
        raise older_file("plan", path)
    plan = _validate(source, str(path))
    return plan.model_copy(update={"predicted": read_forecast(path, plan.work_digest())})


def parse_plan(loaded: dict[str, Any], source: str = "plan") -> Plan:
    """Validate a mapping as a plan.

    Args:
        loaded: the mapping.
        source: name of the file or object in messages.

    Raises:
        BadInput: a key or value is wrong; the message names it.
    """
    return _validate(PlanSource(loaded), source)


def _validate(source: PlanSource, name: str) -> Plan:
    """Return the plan of what was read; BadInput lists what is wrong with it."""
    try:
        return Plan.model_validate(check_schema(source.values, "plan", name))
    except ValidationError as error:
        raise BadInput(*explain_problems(error, source, name, Plan)) from None


def write_plan(plan: Plan, path: Path | str) -> None:
    """Write the plan as YAML and its prediction as JSON beside it, each atomically.

    The prediction is written first: a plan that lacks it is whole, and one that is left from another plan is noticed.
    """
    write_forecast(Path(path), plan.work_digest(), plan.predicted)
    write_text(Path(path), plan_text(plan))


def _with_absolute_paths(data: PlanData, folder: Path) -> PlanData:
    paths = {name: folder / path for name in PATH_KEYS if (path := getattr(data, name)) is not None}
    return data.model_copy(update=paths)


def plan_differences(old: Plan, new: Plan, ignore: Collection[str] = RECORD_KEYS) -> list[Difference]:
    """Return the keys in which two plans differ, with both values, but for top-level keys in ``ignore``.

    The reasons of train steps and of ``refusal`` are not compared where it has ``reasons``.
    """
    differences: list[Difference] = []

    def compare(path: str, a: Any, b: Any) -> None:
        if isinstance(a, dict) and isinstance(b, dict):
            for key in sorted((a.keys() | b.keys()) - ({"reasons"} & set(ignore))):
                compare(f"{path}.{key}" if path else key, a.get(key), b.get(key))
        elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
            for number, (x, y) in enumerate(zip(a, b, strict=True)):
                compare(f"{path}[{number}]", x, y)
        elif a != b:
            differences.append((path, a, b))

    compare("", *(plan.model_dump(mode="json", by_alias=True, exclude=set(ignore)) for plan in (old, new)))
    return differences


def with_seeds(plan: Plan, count: int) -> Plan:
    """Return the plan with ``count`` training runs for every tuned arm, with consecutive seeds from its first one.

    The scores of an arm are averaged over them, question by question. Raises UsageProblem when the plan trains nothing.
    """
    if not any(isinstance(step, TrainStep) for step in plan.steps):
        raise UsageProblem(f"--seeds {count} changes nothing: the plan trains no arm", "remove it")
    return plan.model_copy(update={"steps": tuple(_seeded(step, count) for step in plan.steps)})


def _seeded(step: Step, count: int) -> Step:
    if not isinstance(step, TrainStep) or len(step.seeds) == count:
        return step
    # The recorded reason was for another number of seeds.
    reasons = {name: why for name, why in step.reasons.items() if name != "seeds"}
    seeds = tuple(range(step.seeds[0], step.seeds[0] + count))
    return step.model_copy(update={"seeds": seeds, "reasons": reasons})
