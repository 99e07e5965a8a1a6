"""Plans that compare several models: which arms they measure, what is left out, and bad input on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from advisor.advice import DraftSettings, ModelsRecommendation, Recommendation, recommend
from advisor.compared_models import best_model
from advisor.costs.step_time import estimate_step_times
from advisor.costs.trial_price import arm_usd, price_of_tokens, with_list_price
from advisor.questionnaire.answers import Answers
from advisor.questionnaire.probe_facts import ProbeFacts, ProbeShare
from rag.errors import BadInput, CannotRun, UsageProblem
from runners.plan.arm_names import split_arm
from runners.plan.schema import Plan, read_plan, write_plan
from runners.plan.steps import EvaluateStep, IndexStep, PlanModel, TrainStep
from runners.resources.machine import Detected, Machine

SMALL, TINY = "smollm2-135m-instruct", "gemma-3-270m"
OWN = "openai:m@http://127.0.0.1:9999/v1"
HOSTED = "openai:gpt-4o-mini@https://api.openai.com/v1"
HUGE = "llama-3.3-70b-instruct"
LABELS = ("fare", "timetable", "lost property", "other")


@pytest.fixture(scope="module")
def computer() -> Machine:
    """Return a machine without a GPU, described by hand."""
    values = {"gpu_kind": "none", "gpu_count": 0, "gpu_memory_gib": 0.0, "gpu_name": "", "ram_gib": 16.0}
    values |= {"cpu_cores": 4, "disk_gib": 100.0, "bf16": False}
    return Machine(**{name: Detected(value, "described by hand") for name, value in values.items()})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Write a small task, and return its answers: documents, 60 examples in one style, 24 questions."""
    folder = tmp_path_factory.mktemp("task")
    (folder / "documents").mkdir()
    for number in range(8):
        text = f"# Pier {number}\n\nPier {number} has {number + 3} berths.\n" + "Boats moor there. " * 200
        (folder / "documents" / f"pier{number}.md").write_text(text, "utf-8")
    rows = [
        {
            "prompt": f"When does boat {n} sail?",
            "completion": f"Boat {n} sails at {n % 12 + 1}. May I book it?",
        }
        for n in range(60)
    ]
    questions = [
        {"question": f"How many berths has pier {n % 8}, boat {n}?", "answers": [str(n % 8 + 3)]}
        for n in range(24)
    ]
    for name, lines in (("examples", rows), ("questions", questions)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines), "utf-8")
    return {
        "documents": str(folder / "documents"),
        "examples": str(folder / "examples.jsonl"),
        "questions": str(folder / "questions.jsonl"),
        "behaviour_gap": "high",
    }


@pytest.fixture(scope="module")
def advise(files: dict[str, str], computer: Machine) -> Callable[..., ModelsRecommendation]:
    """Return a function that recommends for several models of the small task."""

    def run(answers: dict[str, Any] | None = None, **options: Any) -> ModelsRecommendation:
        advice = recommend(files | (answers or {}), machine=computer, **options)
        assert isinstance(advice, ModelsRecommendation)
        return advice

    return run


@pytest.fixture(scope="module")
def three(advise: Callable[..., ModelsRecommendation]) -> ModelsRecommendation:
    """Return the advice on two local models and an endpoint, without limits."""
    return advise(models={"small": SMALL, "tiny": TINY, "own": OWN})


def plan_of(advice: ModelsRecommendation) -> Plan:
    """Return the drafted plan."""
    assert advice.drafted is not None
    return advice.drafted.plan


def test_plan_asks_model_after_model_and_shares_the_rest(three: ModelsRecommendation, tmp_path: Path) -> None:
    plan = plan_of(three)
    assert isinstance(plan.steps[0], IndexStep)
    assert sum(isinstance(step, IndexStep) for step in plan.steps) == 1
    order = [split_arm(step.arm)[1] for step in plan.steps if isinstance(step, TrainStep | EvaluateStep)]
    assert list(dict.fromkeys(order)) == ["small", "tiny", "own"], "smallest first, endpoints last"
    assert order == sorted(order, key=["small", "tiny", "own"].index), "each model's steps are together"
    assert {alias: model.name for alias, model in plan.models.items()} == {
        "small": SMALL,
        "tiny": TINY,
        "own": OWN,
    }
    for step in plan.steps:
        if isinstance(step, EvaluateStep) and step.weights:
            assert split_arm(step.weights)[1] == split_arm(step.arm)[1]
    write_plan(plan, tmp_path / "plan.yaml")
    assert read_plan(tmp_path / "plan.yaml").steps == plan.steps


def test_each_model_has_its_choice_and_the_simple_arms(three: ModelsRecommendation) -> None:
    arms = {arm.arm for arm in plan_of(three).arms}
    assert {"hybrid@small", "hybrid@tiny"} <= arms
    assert {
        f"{method}@{alias}"
        for method in ("prompting", "few-shot", "rag")
        for alias in ("small", "tiny", "own")
    } <= arms
    assert not any(arm.startswith(("naive-stack", "rag-few-shot", "lora")) for arm in arms)
    left = {row.arm: row for row in three.left_out}
    assert left["lora@own"].kind == "blocked"
    assert "endpoint" in left["lora@own"].reason
    assert left["naive-stack@small"].kind == "ranked_low"
    assert "one way of tuning" in left["qlora@small"].reason
    assert not arms & set(left)


def test_choice_gate_and_forecast_name_arms_of_all_models(three: ModelsRecommendation) -> None:
    plan = plan_of(three)
    assert three.best == "own", "an endpoint of unknown size counts as larger"
    assert plan.choice == three.choice == plan.predicted["choice"]
    assert plan.model == plan.models["own"]
    ranked = [row["method"] for row in plan.predicted["ranked"]]
    assert ranked[0] == plan.choice
    assert {"hybrid@small", "rag@tiny", "prompting@own"} <= set(ranked)
    assert set(plan.gate.must_beat) <= {arm.arm for arm in plan.arms} - {plan.choice}
    assert plan.gate.prefer is None
    assert set(plan.answers) >= {"models", "documents"}
    assert "model" not in plan.answers
    assert sum(row["probability"] is not None for row in three.to_json()["ranked"]) == 1


def test_gate_leaves_out_arms_of_dearer_models(advise: Callable[..., ModelsRecommendation]) -> None:
    """The hybrid of the larger of two models has to beat all that is cheaper, of the smaller model too."""
    advice = advise(models={"small": SMALL, "tiny": TINY})
    assert advice.best == "tiny"
    plan = plan_of(advice)
    assert any(arm.endswith("@small") for arm in plan.gate.must_beat)
    assert not any(arm.startswith("hybrid") for arm in plan.gate.must_beat if arm.endswith("@tiny"))


def test_one_alias_gives_the_plan_of_one_model(files: dict[str, str], computer: Machine) -> None:
    one = recommend(files, models={"a": TINY}, machine=computer)
    plain = recommend(files | {"model": TINY}, machine=computer)
    assert type(one) is Recommendation
    assert one.plan() == plain.plan()
    assert one.to_json() == plain.to_json()


def test_second_alias_of_same_model_is_refused() -> None:
    for names in ({"a": SMALL, "b": SMALL}, {"a": SMALL, "b": "SmolLM2-135M-Instruct"}):
        with pytest.raises(BadInput, match="a and b are the same model"):
            Answers().put("flag", {"models": names})


def test_minutes_limit_whole_trial(
    advise: Callable[..., ModelsRecommendation], three: ModelsRecommendation
) -> None:
    assert three.selection is not None
    limit = three.selection.minutes / 2
    advice = advise(models={"small": SMALL, "tiny": TINY, "own": OWN}, minutes=limit)
    assert advice.selection is not None
    assert 2 <= len(advice.selection.measured) < len(three.selection.measured)
    assert advice.selection.minutes <= limit
    late = [row for row in advice.left_out if row.kind == "minutes"]
    assert late
    assert all("does not fit the minutes" in row.reason and row.minutes for row in late)
    wanted = {arm.arm for arm in three.selection.measured}
    assert wanted == {arm.arm for arm in advice.selection.measured} | {row.arm for row in late}, (
        "none is lost"
    )
    assert plan_of(advice).choice in {arm.arm for arm in advice.selection.measured}


def test_best_fit_is_the_choice_where_no_advised_arm_fits_the_minutes(
    advise: Callable[..., ModelsRecommendation],
) -> None:
    whole = advise(models={"small": SMALL, "tiny": TINY})
    assert whole.selection is not None
    prompts = [row.minutes or 0.0 for row in whole.selection.measured if row.arm.startswith("prompting@")]
    advice = advise(models={"small": SMALL, "tiny": TINY}, minutes=round(sum(prompts) + 0.05, 2))
    plan = plan_of(advice)
    assert {arm.arm for arm in plan.arms} == {"prompting@small", "prompting@tiny"}
    scores = {row["method"]: row["score"] for row in advice.to_json()["ranked"]}
    assert plan.choice == max(("prompting@tiny", "prompting@small"), key=lambda arm: scores[arm])
    assert plan.predicted["choice"] == "hybrid@tiny", "the advice itself is recorded"
    assert any("is held to account" in note for note in advice.drafted.notes)  # type: ignore[union-attr]


def test_nothing_within_minutes_is_refused(advise: Callable[..., ModelsRecommendation]) -> None:
    with pytest.raises(UsageProblem, match="no arm fits"):
        advise(models={"small": SMALL, "tiny": TINY}, minutes=0.1)


def test_dollars_limit_answers_and_go_into_plan(advise: Callable[..., ModelsRecommendation]) -> None:
    free = advise(models={"small": SMALL, "big": HOSTED})
    assert free.selection is not None
    assert free.selection.usd
    plan = plan_of(free)
    assert plan.most_usd is None
    assert (plan.models["big"].usd_per_million_input, plan.models["big"].usd_per_million_output) == (
        0.15,
        0.6,
    )
    assert plan.models["small"].usd_per_million_input is None
    cap = free.selection.usd / 2
    advice = advise(models={"small": SMALL, "big": HOSTED}, usd=cap)
    assert advice.selection is not None
    assert advice.selection.usd is not None
    assert 0 < advice.selection.usd <= cap
    assert plan_of(advice).most_usd == cap
    assert any(row.kind == "usd" and "does not fit the dollars" in row.reason for row in advice.left_out)
    local = {arm.arm for arm in free.selection.measured if arm.arm.endswith("@small")}
    assert local <= {arm.arm for arm in advice.selection.measured}, "what costs nothing stays"


def test_cap_below_smallest_trial_is_refused_with_both_figures(
    advise: Callable[..., ModelsRecommendation],
) -> None:
    with pytest.raises(UsageProblem, match=r"0\.0001 USD do not pay .* costs up to 0\.0"):
        advise(models={"small": SMALL, "big": HOSTED}, usd=0.0001)


def test_model_without_price_is_left_out_under_a_cap_alone(
    advise: Callable[..., ModelsRecommendation],
) -> None:
    models = {"small": SMALL, "other": "openai:unlisted@https://host.example/v1"}
    capped = advise(models=models, usd=5)
    assert {row.kind for row in capped.left_out if row.arm == "prompting@other"} == {"no_price"}
    assert plan_of(capped).choice.endswith("@small")
    assert any("does not fit the limits" in note for note in capped.drafted.notes)  # type: ignore[union-attr]
    free = advise(models=models)
    assert free.selection is not None
    assert free.selection.usd is None
    assert "prompting@other" in {arm.arm for arm in free.selection.measured}


def test_model_that_fits_nothing_is_left_out(advise: Callable[..., ModelsRecommendation]) -> None:
    advice = advise(models={"small": SMALL, "tiny": TINY, "huge": HUGE})
    assert "does not fit here" in advice.unusable["huge"]
    assert "huge" not in plan_of(advice).models
    assert advice.to_json()["models"]["huge"]["usable"] is False
    assert advice.left_out[0].arm == "*@huge"
    assert advice.left_out[0].kind == "model"
    alone = advise(models={"small": SMALL, "huge": HUGE})
    assert (plan_of(alone).models, plan_of(alone).choice) == ({}, "hybrid"), "one model is left: its own plan"
    assert alone.to_json()["choice"] == "hybrid"
    with pytest.raises(CannotRun, match=r"none of the models can be used here: huge .*; large "):
        advise(models={"huge": HUGE, "large": "qwen3-32b"})


def test_data_that_must_stay_local_leave_public_hosts_out(
    advise: Callable[..., ModelsRecommendation],
) -> None:
    advice = advise({"data_must_stay_local": True}, models={"small": SMALL, "own": OWN, "big": HOSTED})
    assert list(advice.unusable) == ["big"]
    assert "api.openai.com" in advice.unusable["big"]
    assert set(plan_of(advice).models) == {"small", "own"}


def test_missing_key_of_a_host_is_said(
    advise: Callable[..., ModelsRecommendation], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "TUNEWISE_API_KEYS", "TUNEWISE_API_HOST", "TUNEWISE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    notes = advise(models={"own": OWN, "big": HOSTED}).notes_on_models
    assert [note for note in notes if note.startswith("big: no key is set for api.openai.com")]
    assert not [note for note in notes if note.startswith("own")]
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert not advise(models={"own": OWN, "big": HOSTED}).notes_on_models


def test_arms_without_a_model_are_there_once(tmp_path: Path, computer: Machine) -> None:
    rows = [
        {"prompt": f"message {n} about the {LABELS[n % 4]}", "completion": LABELS[n % 4]} for n in range(80)
    ]
    asked = [{"question": f"note {n} on the {LABELS[n % 4]}", "answers": [LABELS[n % 4]]} for n in range(30)]
    for name, lines in (("examples", rows), ("questions", asked)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines), "utf-8")
    answers = {"examples": str(tmp_path / "examples.jsonl"), "questions": str(tmp_path / "questions.jsonl")}
    advice = recommend(answers, models={"small": SMALL, "tiny": TINY}, machine=computer)
    assert isinstance(advice, ModelsRecommendation)
    plan = plan_of(advice)
    assert [arm.arm for arm in plan.arms if arm.without_model] == ["classifier", "nearest-reply"]
    routers = [row.arm for row in advice.left_out if row.arm.startswith("router@")]
    assert routers == ["router@small", "router@tiny"]


def test_seconds_of_arms_are_those_of_each_model_alone(
    files: dict[str, str], computer: Machine, three: ModelsRecommendation
) -> None:
    """An arm of a model takes as long in the trial of several as in that of the model alone."""
    together = dict(estimate_step_times(plan_of(three), 60, 16))
    for alias, name in (("small", SMALL), ("tiny", TINY), ("own", OWN)):
        alone = dict(estimate_step_times(recommend(files | {"model": name}, machine=computer).plan(), 60, 16))
        for step in ("evaluate:prompting", "evaluate:rag"):
            assert together[f"{step}@{alias}"] == pytest.approx(alone[step], rel=1e-6)
    assert together["evaluate:rag@tiny"] > together["evaluate:rag@small"]


def test_second_seed_is_decided_for_all_models_within_minutes(
    advise: Callable[..., ModelsRecommendation], three: ModelsRecommendation
) -> None:
    seeds = {step.seeds for step in plan_of(three).steps if isinstance(step, TrainStep)}
    assert len(seeds) == 1
    assert three.selection is not None
    tight = advise(models={"small": SMALL, "tiny": TINY, "own": OWN}, minutes=three.selection.minutes * 0.9)
    trained = [step for step in plan_of(tight).steps if isinstance(step, TrainStep)]
    assert tight.selection is not None
    assert tight.selection.minutes <= three.selection.minutes * 0.9
    assert all(step.reasons["seeds"] for step in trained)


def test_prices_are_of_tokens(three: ModelsRecommendation) -> None:
    hosted = with_list_price(PlanModel(name=HOSTED))
    assert (hosted.usd_per_million_input, hosted.usd_per_million_output) == (0.15, 0.6)
    own_price = PlanModel(name=HOSTED, usd_per_million_input=3, usd_per_million_output=6)
    assert price_of_tokens(own_price).read == 3  # type: ignore[union-attr]
    assert price_of_tokens(PlanModel(name="openai:x@https://host.example/v1")) is None
    assert with_list_price(PlanModel(name=OWN)) == PlanModel(name=OWN), (
        "a server of one's own has no list price"
    )
    plan = plan_of(three).model_copy(update={"models": dict.fromkeys(plan_of(three).models, own_price)})
    arms = {arm.arm: arm for arm in plan.arms}
    usd = {
        name: arm_usd(plan, arms[f"{name}@own"], three.profile, 16)
        for name in ("prompting", "rag", "few-shot")
    }
    assert all(usd.values())
    assert usd["rag"] != usd["prompting"]
    twice = arm_usd(plan, arms["rag@own"], three.profile, 32)
    assert twice == pytest.approx(2 * usd["rag"], rel=1e-6)  # type: ignore[operator]


def test_best_model_is_that_with_more_right_answers_else_the_larger(three: ModelsRecommendation) -> None:
    small, tiny = three.models["small"], three.models["tiny"]
    assert best_model({"small": small, "tiny": tiny}) == "tiny"
    assert best_model({"tiny": tiny, "own": three.models["own"]}) == "own"

    def probed(advice: Recommendation, right: int) -> Recommendation:
        share = ProbeShare(right, 20)
        facts = ProbeFacts(passes=share, few_shot=share, retrieved=share)
        prompting = next(m for m in advice.ranking.methods if m.method.name == "prompting")
        others = [m for m in advice.ranking.methods if m is not prompting]
        ranking = replace(advice.ranking, methods=(prompting, *others))
        return replace(advice, profile=replace(advice.profile, probe=facts), ranking=ranking)

    assert best_model({"small": probed(small, 15), "tiny": probed(tiny, 5)}) == "small"
    assert best_model({"small": probed(small, 15), "tiny": tiny}) == "tiny", "not known for every model"


def test_tuned_retriever_is_measured_with_each_model(advise: Callable[..., ModelsRecommendation]) -> None:
    pytest.importorskip("datasets")
    plan = plan_of(advise(models={"small": SMALL, "own": OWN}, drafting=DraftSettings(tune_retriever=True)))
    assert {"rag-tuned@small", "rag-tuned@own"} <= {arm.arm for arm in plan.arms}
    assert plan.embedder_step is not None
    assert sum(step.kind == "embedder" for step in plan.steps) == 1


def test_limits_need_several_models(files: dict[str, str], computer: Machine) -> None:
    for answers in ({"minutes": 5}, {"usd": 1, "model": TINY}, {"usd": 1, "models": {"a": TINY}}):
        with pytest.raises(UsageProblem, match="a limit is for the trial of several models"):
            recommend(files | answers, machine=computer)
    with pytest.raises(BadInput, match="model_params_b is the size of one model"):
        recommend(files | {"models": {"a": TINY, "b": SMALL}, "model_params_b": 7}, machine=computer)
    with pytest.raises(BadInput, match="model and models are both given"):
        recommend(files | {"models": {"a": TINY, "b": SMALL}, "model": TINY}, machine=computer)


REFUSED = {
    "unknown": (3, ["--models", f"a={SMALL}", "--models", "b=nonsense"], "unknown model 'nonsense'"),
    "no alias": (3, ["--models", SMALL, "--models", f"b={TINY}"], "is not ALIAS=NAME"),
    "alias rule": (3, ["--models", f"a b={SMALL}", "--models", f"b={TINY}"], "is no alias"),
    "alias twice": (3, ["--models", f"a={SMALL}", "--models", f"a={TINY}"], "the alias a is given twice"),
    "model twice": (3, ["--models", f"a={SMALL}", "--models", f"b={SMALL}"], "a and b are the same model"),
    "alias in another case": (
        3,
        ["--models", f"a={SMALL}", "--models", f"A={TINY}"],
        "from another alias in case alone",
    ),
    "folder twice": (3, ["--models", "a=m", "--models", "b=./m/"], "a and b are the same model"),
    "endpoint": (
        3,
        ["--models", f"a={SMALL}", "--models", "b=openai:foo"],
        "not of the form openai:NAME@URL",
    ),
    "both": (2, ["--model", TINY, "--models", f"a={SMALL}"], "--model and --models are both given"),
    "minutes": (2, ["--minutes", "5"], "a limit is for the trial of several models"),
    "probe": (
        2,
        ["--models", f"a={SMALL}", "--models", f"b={TINY}", "--probe"],
        "--probe measures one model",
    ),
    "cap": (
        2,
        ["--models", f"a={SMALL}", "--models", f"b={HOSTED}", "--usd", "0.0001"],
        "smallest useful trial",
    ),
    "none fits": (
        4,
        ["--models", f"a={HUGE}", "--models", "b=qwen3-32b"],
        "none of the models can be used here",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_before_anything_is_written(
    case: str,
    files: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from advisor.cli import main

    monkeypatch.chdir(tmp_path)
    code, flags, text = REFUSED[case]
    given = [word for key in ("documents", "examples", "questions") for word in (f"--{key}", files[key])]
    machine = ["--set", "ram_gib=16", "--set", "gpu_kind=none"]
    with pytest.raises(SystemExit) as stopped:
        main(["plan", *given, *machine, *flags, "--yes", "--out", "plan.yaml"])
    errors = capsys.readouterr().err
    assert stopped.value.code == code, errors
    lines = errors[errors.index("tunewise: ") :].splitlines()
    assert text in errors
    assert 1 <= len(lines) <= 3
    assert "Traceback" not in errors
    assert not list(tmp_path.iterdir())


def test_command_line_prints_and_explains_several_models(
    files: dict[str, str], tmp_path: Path, tunewise: Callable[..., Any]
) -> None:
    given = [word for key in ("documents", "examples", "questions") for word in (f"--{key}", files[key])]
    models = ["--models", f"small={SMALL}", "--models", f"own={OWN}"]
    done = tunewise(
        "plan",
        *given,
        *models,
        "--set",
        "behaviour_gap=high",
        "--out",
        "p.yaml",
        "--json",
        "--record",
        "d.md",
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    plan = yaml.safe_load((tmp_path / "p.yaml").read_text("utf-8"))
    assert printed["choice"] == plan["choice"]
    assert printed["models"]["own"]["name"] == OWN
    assert printed["models"]["small"]["fits"]
    assert [row["arm"] for row in printed["measured"]]
    assert {"arm", "minutes", "usd", "reason"} <= set(printed["measured"][0])
    assert {row["arm"] for row in printed["measured"]} == {
        s["arm"] for s in plan["steps"] if s["kind"] == "evaluate"
    }
    assert {"arm", "reason", "kind"} <= set(printed["left_out"][0])
    record = (tmp_path / "d.md").read_text("utf-8")
    assert "## Which models" in record
    assert "`smollm2-135m-instruct`" in record
    explained = tunewise("explain", "p.yaml")
    assert explained.returncode == 0, explained.stderr
    assert f"small: {SMALL}" in explained.stdout
    assert f"own: {OWN}" in explained.stdout
    changed = tunewise("whatif", "p.yaml", "--set", "minutes=3")
    assert changed.returncode == 0, changed.stderr
    assert "Arms to test" in changed.stdout
    assert "- " in changed.stdout
    shown = tunewise("plan", "--answers", "p.yaml", "--yes", "--out", "again.yaml")
    assert shown.returncode == 0, shown.stderr
    assert "arm to test" in shown.stdout
    assert "Left out" in shown.stdout
    assert "prompting@small" in shown.stdout
    again = yaml.safe_load((tmp_path / "again.yaml").read_text("utf-8"))
    assert (again["models"], again["steps"]) == (plan["models"], plan["steps"])
