"""Drafting plans: arms, checks, weights, gate, paths."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from advisor.advice import Recommendation
from advisor.costs.arm_costs import cheaper_arms
from advisor.drafting.draft import DraftedPlan, draft_with_notes
from advisor.drafting.train_steps import dev_questions, with_passages_settings
from advisor.questionnaire.gather import complete_situation, flag_answers, profile_of_plan
from advisor.recommendation.recommend import recommend_for_profile
from rag.errors import UsageProblem
from runners.catalog.models import DEFAULT_MODEL
from runners.data.questions import load_questions
from runners.models.registry import planned_model
from runners.plan.schema import Plan, RefusalSettings, read_plan, write_plan
from runners.plan.steps import Route, TrainStep
from runners.resources.machine import Machine
from runners.runs.dataset import read_data
from runners.runs.requirements import check_gpu

FILE_KEYS = ("documents", "examples", "questions")


def drafted(laptop: Machine, *sets: str, folder: Path = Path(), **files: Any) -> DraftedPlan:
    """Draft a plan from answers and files, for the small model where no other is named."""
    situation = complete_situation(flag_answers((f"model={DEFAULT_MODEL}", *sets), **files), laptop)
    return draft_with_notes(recommend_for_profile(situation.profile), situation, folder)


def test_small_model_stands_in_for_a_suggested_one(task_files: Any, laptop: Machine) -> None:
    """The advice is for the suggested model; the arms, tuned ones too, are those of the small one, and a note says so."""
    files = {key: getattr(task_files, key) for key in FILE_KEYS}
    for place in ("runs_on=here", "runs_on=other"):
        situation = complete_situation(
            flag_answers(("behaviour_gap=high", "must_cite=yes", place), **files), laptop
        )
        recommendation = recommend_for_profile(situation.profile)
        draft = draft_with_notes(recommendation, situation)
        planned = situation.profile.model
        assert planned not in (None, DEFAULT_MODEL)
        assert (draft.plan.model.name, draft.plan.answers["model"].value) == (DEFAULT_MODEL, planned)
        assert planned_model(draft.plan) == planned
        assert (
            f"the advice is for {planned}; the trial here asks {DEFAULT_MODEL} in its place" in draft.notes[0]
        )
        assert draft.plan.choice == recommendation.choice
        assert {"prompting", "rag", "hybrid"} <= {arm.arm for arm in draft.plan.arms}
        assert profile_of_plan(draft.plan, laptop).params_b == pytest.approx(0.1345)
        check_gpu(draft.plan, laptop)


def test_prices_of_an_endpoint_reach_the_plan(task_files: Any, laptop: Machine) -> None:
    """Both or none, and of an endpoint alone; a run counts money by them."""
    usd = ("usd_per_million_input=0.5", "usd_per_million_output=2")
    endpoint = "model=openai:tern@http://127.0.0.1:1/v1"
    for given, prices in (
        ((endpoint, *usd), (0.5, 2)),
        ((endpoint, usd[0]), (None, None)),
        (usd, (None, None)),
    ):
        model = drafted(
            laptop, *given, examples=task_files.examples, questions=task_files.questions
        ).plan.model
        assert (model.usd_per_million_input, model.usd_per_million_output) == prices


def test_small_model_stands_in_for_a_size_without_a_name(task_files: Any, laptop: Machine) -> None:
    """The trial is of another model than the advice, so it is a proxy."""
    files = {key: getattr(task_files, key) for key in FILE_KEYS}
    situation = complete_situation(flag_answers(("behaviour_gap=high", "model_params_b=8"), **files), laptop)
    draft = draft_with_notes(recommend_for_profile(situation.profile), situation)
    assert draft.notes[0].startswith(f"the advice is for a model of 8 B; the trial here asks {DEFAULT_MODEL}")
    assert planned_model(draft.plan) == "a model of 8 B"


def test_draft_has_all_arms_in_order(task_files: Any, laptop: Machine) -> None:
    """With documents and examples; the hybrid is trained on rows with passages."""
    plan = drafted(
        laptop,
        "behaviour_gap=high",
        documents=task_files.documents,
        examples=task_files.examples,
        questions=task_files.questions,
        prompt=task_files.prompt,
    ).plan
    assert [arm.arm for arm in plan.arms] == [
        "prompting",
        "few-shot",
        "long-context",
        "rag",
        "rag-few-shot",
        "lora",
        "naive-stack",
        "hybrid",
    ]
    assert plan.choice == "hybrid"
    untrained = [arm for arm in plan.arms if not arm.weights and arm.passages == "found"]
    assert {(arm.chooses_prompt, arm.budget) for arm in untrained} == {(True, 60)}, (
        "the same for every prompt"
    )
    hybrid = plan.train_step("hybrid")
    assert (hybrid.rows, hybrid.start_from, hybrid.method) == ("retrieval", None, "lora")
    assert hybrid.rank == plan.train_step("lora").rank
    assert plan.train_step("lora").reasons
    assert plan.train_step("lora").batch_tokens < hybrid.batch_tokens == 1024, (
        "few short rows, and longer ones"
    )
    assert "would be learnt in" in plan.train_step("lora").reasons["batch_tokens"]
    assert plan.gate.must_beat == ("prompting", "few-shot", "long-context", "rag", "rag-few-shot", "lora")
    assert plan.prompts.system.startswith("Answer in one statement")
    assert plan.checks[0].text.startswith("one statement, then one closing question (100 % of ")
    assert plan.weights["style"] > 0
    assert plan.weight_reasons.keys() == plan.weights.keys()
    assert plan.predicted["choice"] == "hybrid"
    assert plan.answers["labelled_examples"].source == "counted"


def test_only_rows_with_passages_take_their_own_passes() -> None:
    plain, passages = (
        TrainStep(arm="lora", reasons={"rank": "16 because"}),
        TrainStep(arm="hybrid", rows="retrieval"),
    )
    first, second = with_passages_settings((plain, passages), 357, 0.135)
    assert first == plain
    assert isinstance(second, TrainStep)
    assert (second.epochs, second.learning_rate) == (1.0, 1.5e-3)
    assert second.reasons.keys() == {"epochs", "learning_rate"}
    assert with_passages_settings((plain, passages), 357, 7.0) == (plain, passages)


def test_expensive_wrong_answers_are_refused_sooner(task_files: Any, laptop: Machine) -> None:
    def refusal(*sets: str, **files: Any) -> RefusalSettings:
        return drafted(laptop, *sets, **files).plan.refusal

    documents, examples = {"documents": task_files.documents}, {"examples": task_files.examples}
    costly = refusal("wrong_answer_cost=high", **documents)
    assert costly.most_wrong == 0.15 > RefusalSettings().most_wrong
    assert "a wrong answer is expensive" in costly.reasons["most_wrong"]
    assert refusal("wrong_answer_cost=low", **documents) == refusal(**documents) == RefusalSettings()
    assert refusal("wrong_answer_cost=high", **examples) == RefusalSettings()


def test_draft_from_documents_only(task_files: Any, laptop: Machine) -> None:
    """Prompting and retrieval, no tuning; a note says that there are no checks."""
    draft = drafted(laptop, "must_cite=yes", documents=task_files.documents, questions=task_files.questions)
    assert [arm.arm for arm in draft.plan.arms] == ["prompting", "long-context", "rag"]
    assert draft.plan.choice == "rag"
    assert draft.plan.weights["citation"] > 0
    assert any("no checks of style" in note for note in draft.notes)


def test_draft_trains_on_raw_texts_without_showing_them(
    task_files: Any, laptop: Machine, tmp_path: Path
) -> None:
    """Raw texts have no question: no few-shot, no rows with passages, no style to check."""
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(3):
        (texts / f"{number}.txt").write_text(f"The lamp of berth {number} burns all night. " * 4000, "utf-8")
    draft = drafted(laptop, documents=task_files.documents, examples=texts, questions=task_files.questions)
    assert {arm.arm for arm in draft.plan.arms} <= {"prompting", "long-context", "rag", "lora", "naive-stack"}
    assert all(step.rows == "plain" for step in draft.plan.steps if isinstance(step, TrainStep))
    assert any("no checks of style" in note for note in draft.notes)
    assert draft.plan.answers["unlabelled_tokens"].source == "counted"


def test_draft_from_examples_only(task_files: Any, laptop: Machine) -> None:
    """No index, no retrieval; the replies state facts, which are scored unless it is said that none are needed."""
    files = {"examples": task_files.examples, "questions": task_files.questions}
    plan = drafted(laptop, "behaviour_gap=high", **files).plan
    assert plan.index is None
    assert [arm.arm for arm in plan.arms][:2] == ["prompting", "few-shot"]
    assert "fact_recall" in plan.weights
    plan = drafted(laptop, "behaviour_gap=high", "task_needs_facts=none", **files).plan
    assert "fact_recall" not in plan.weights


def test_longest_answer_follows_the_tokens_of_the_examples(
    task_files: Any, laptop: Machine, tmp_path: Path
) -> None:
    """JSON has about two characters a token: a limit from four would be below the shortest answer of its schema."""
    rows = [
        {
            "prompt": f"Item {n} of Anna",
            "completion": json.dumps({"n": n, "tags": [n, 1], "ok": True, "r": n / 4}),
        }
        for n in range(10, 50)
    ]
    path = tmp_path / "examples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    plain, counted = (
        drafted(laptop, *sets, examples=path, questions=task_files.questions).plan.max_new_tokens
        for sets in (("answer_tokens=10",), ("answer_tokens=34",))
    )
    assert plain < 34 < counted == 48


def test_draft_does_not_continue_full_tuning_as_adapter(
    task_files: Any, laptop: Machine, make_rows: Any, make_example: Any
) -> None:
    """A hybrid beside a fully tuned arm starts from the base."""
    make_rows(task_files.examples, [make_example(n) for n in range(300)])
    plan = drafted(
        laptop,
        "task_needs_facts=none",
        "behaviour_gap=high",
        documents=task_files.documents,
        examples=task_files.examples,
    ).plan
    assert plan.choice == "full"
    assert plan.train_step("hybrid").start_from is None


def test_draft_without_memory_has_no_tuning_arm(task_files: Any, laptop: Machine) -> None:
    """A note states the blocker."""
    draft = drafted(
        laptop,
        "behaviour_gap=high",
        "model_params_b=70",
        "gpu_memory_gib=8",
        "gpu_count=1",
        documents=task_files.documents,
        examples=task_files.examples,
    )
    assert not any(isinstance(step, TrainStep) for step in draft.plan.steps)
    assert any("no fine-tuning is tested" in note and "8 GiB" in note for note in draft.notes)


def test_draft_takes_refusals_from_examples(
    task_files: Any, laptop: Machine, make_rows: Any, make_example: Any
) -> None:
    """Eight distinct refusals at most; questions without an answer add the refusal score."""
    rows = [make_example(n) for n in range(60)]
    for n in range(30):
        rows[n]["messages"][1]["content"] = f"That is not in our papers, case {n % 10}. May I ask around?"
        rows[n]["meta"]["refusal"] = True
    make_rows(task_files.examples, rows)
    make_rows(task_files.questions, [{"question": "Is there a whale?", "answerable": False}])
    plan = drafted(
        laptop, documents=task_files.documents, examples=task_files.examples, questions=task_files.questions
    ).plan
    assert len(plan.prompts.refusals) == 8
    assert all("not in our papers" in text for text in plan.prompts.refusals)
    assert plan.weights["refusal"] == 0.5


def test_drafted_paths_are_relative_to_the_plan(task_files: Any, laptop: Machine, tmp_path: Path) -> None:
    """They are read back as absolute paths; the file reads back the same."""
    plan = drafted(
        laptop, folder=task_files.folder, documents=task_files.documents, examples=task_files.examples
    ).plan
    assert plan.data.documents == Path("documents")
    assert plan.answers["documents"].value == "documents"
    path = task_files.folder / "plan.yaml"
    write_plan(plan, path)
    again = read_plan(path)
    assert again.data.documents == task_files.documents
    assert again.model_copy(update={"data": plan.data}) == plan


def test_draft_without_files_has_the_arms_of_the_advice_and_lacks_their_files(
    laptop: Machine, tmp_path: Path
) -> None:
    """It reads back with what is to be named; as a plan for Python, which would run it, it is refused."""
    situation = complete_situation(
        flag_answers(
            (
                f"model={DEFAULT_MODEL}",
                "behaviour_gap=high",
                "task_needs_facts=new",
                "labelled_examples=300",
            )
        ),
        laptop,
    )
    recommendation = Recommendation.of(situation.profile, situation=situation)
    plan = draft_with_notes(recommendation, situation, tmp_path).plan
    assert plan.choice == recommendation.choice == "hybrid"
    write_plan(plan, tmp_path / "plan.yaml")
    assert read_plan(tmp_path / "plan.yaml").data.not_named == ("documents", "examples", "questions")
    assert "documents" not in plan.answers
    with pytest.raises(UsageProblem, match="nothing to run"):
        recommendation.plan()


def test_draft_is_deterministic(task_files: Any, laptop: Machine) -> None:
    files = {
        "documents": task_files.documents,
        "examples": task_files.examples,
        "questions": task_files.questions,
    }
    a, b = (drafted(laptop, "behaviour_gap=high", **files).plan for _ in range(2))
    assert a.digest() == b.digest()


def test_long_context_arm_only_where_documents_fit(task_files: Any, laptop: Machine) -> None:
    """Not where they are many for the model, or for this machine; the drafted bank is chosen on dev
    questions.
    """

    def arms(*sets: str) -> dict[str, Any]:
        plan = drafted(
            laptop,
            *sets,
            documents=task_files.documents,
            examples=task_files.examples,
            questions=task_files.questions,
        )
        return {arm.arm: arm for arm in plan.plan.arms}

    whole = arms()["long-context"]
    assert (whole.retrieval, whole.passages) == (True, "all")
    assert arms()["few-shot"].bank == "chosen"
    assert "long-context" not in arms("corpus_tokens=7000")
    assert "long-context" not in arms("corpus_tokens=7000", "model=qwen2.5-0.5b-instruct")
    assert "long-context" in arms("corpus_tokens=3900", "model=qwen2.5-0.5b-instruct")
    assert "classifier" not in arms()


def test_a_method_that_reads_documents_itself_is_drafted_where_it_is_advised(
    task_files: Any, laptop: Machine
) -> None:
    """Beside rag, which it must beat; not for a model that calls no tools, nor where nothing speaks for it."""

    def plan(*sets: str) -> Plan:
        files = {"documents": task_files.documents, "questions": task_files.questions}
        return drafted(laptop, "task_needs_facts=new", "behaviour_gap=none", *sets, **files).plan

    hosted = "model=openai:gpt-6.1-terra@https://h/v1"
    changing = plan(hosted, "facts_change=fast", "calls_per_month=1500", "corpus_tokens=3000")
    assert (changing.choice, changing.gate.must_beat) == ("agentic-search", ("prompting", "rag"))
    searching = next(arm for arm in changing.arms if arm.arm == "agentic-search")
    assert (searching.passages, searching.retrieval) == ("looked_up", True)
    assert "agentic-search" not in [arm.arm for arm in plan(hosted, "facts_change=slow").arms]
    assert "agentic-search" not in [arm.arm for arm in plan("facts_change=fast", "calls_per_month=1500").arms]
    whole = plan(hosted, "facts_change=static", "corpus_tokens=60000")
    assert whole.choice == "long-context"
    assert next(arm for arm in whole.arms if arm.arm == "long-context").passages == "all"


def test_label_replies_add_a_classifier_arm(
    task_files: Any, laptop: Machine, make_rows: Any, make_example: Any
) -> None:
    """It is advised, and must beat the prompts; a tuned arm would have to beat it."""
    rows = [make_example(n) for n in range(60)]
    for n, row in enumerate(rows):
        row["messages"][1]["content"] = ("refund", "lost", "hours")[n % 3]
    make_rows(task_files.examples, rows)
    plan = drafted(
        laptop, "behaviour_gap=high", examples=task_files.examples, questions=task_files.questions
    ).plan
    names = ["prompting", "prompting-scored", "few-shot", "few-shot-scored", "classifier"]
    assert [arm.arm for arm in plan.arms][:5] == names
    assert plan.arms[4].classifier
    assert plan.choice == "classifier"
    assert set(plan.gate.must_beat) == {*names[:4], "nearest-reply"}
    assert set(names) <= set(cheaper_arms(plan.steps, plan.arms[-1].arm))
    assert plan.arms[3] == plan.arms[2].model_copy(update={"arm": "few-shot-scored", "labels": "scored"})
    remote = drafted(
        laptop,
        "model=openai:tern-2@http://127.0.0.1:1/v1",
        examples=task_files.examples,
        questions=task_files.questions,
    ).plan
    assert all(arm.labels == "generated" for arm in remote.arms)


def test_replies_that_are_given_again_add_nearest_replies_and_a_router(
    task_files: Any, laptop: Machine, make_rows: Any, make_example: Any
) -> None:
    """Half of the replies or more, as rule LB007 counts; a router follows all arms, and what it asks is said."""
    files = {"examples": task_files.examples, "questions": task_files.questions}

    def arms(replies: int) -> tuple[dict[str, Any], DraftedPlan]:
        rows = [make_example(n) for n in range(60)]
        for n, row in enumerate(rows):
            text = (
                f"The ticket office of pier {n % replies} opens at {n % replies} in the morning, every day."
            )
            row["messages"][1]["content"] = text
        make_rows(task_files.examples, rows)
        draft = drafted(laptop, "behaviour_gap=high", "output_format=fixed", **files)
        return {arm.arm: arm for arm in draft.plan.arms}, draft

    repeated, draft = arms(45)  # fifteen replies twice, thirty once
    assert repeated["nearest-reply"].nearest_reply
    assert list(repeated)[-1] == "router"
    assert repeated["router"].route == Route(first="nearest-reply", otherwise=draft.plan.choice)
    assert "nearest-reply" in draft.plan.gate.must_beat
    assert any(note.startswith("router: nearest-reply, where it is sure, else") for note in draft.notes)
    different, draft = arms(46)
    assert not {"nearest-reply", "router"} & set(different)
    assert not any(note.startswith("router") for note in draft.notes)


def test_model_that_does_not_fit_in_16_bits_is_held_in_four(task_files: Any, laptop: Machine) -> None:
    """Qwen2.5-14B on 24 GiB: hybrid by qlora, and every arm answers from nf4; on 80 GiB nothing changes."""
    card = ("task_needs_facts=new", "behaviour_gap=high", "must_cite=yes", "gpu_kind=cuda", "gpu_count=1")
    files = {"documents": task_files.documents, "examples": task_files.examples}
    model = ("model=qwen2.5-14b-instruct", "labelled_examples=800")
    draft = drafted(laptop, *card, *model, "gpu_memory_gib=24", **files)
    assert draft.plan.choice == "hybrid"
    assert draft.plan.train_step("hybrid").method == "qlora"
    assert draft.plan.model.quantization == "nf4"
    assert any("answer from the base in 4 bits (nf4)" in note and "of 24" in note for note in draft.notes)
    roomy = drafted(laptop, *card, *model, "gpu_memory_gib=80", **files)
    assert roomy.plan.model.quantization == "none"
    assert not any("4 bits" in note for note in roomy.notes)


def test_model_that_does_not_fit_on_a_cpu_answers_from_four_bits(task_files: Any, laptop: Machine) -> None:
    sets = ("task_needs_facts=new", "gpu_kind=none", "ram_gib=16", "model=qwen2.5-7b-instruct")
    draft = drafted(laptop, *sets, documents=task_files.documents)
    assert draft.plan.model.quantization == "nf4"


@pytest.mark.parametrize("half", ["dev", "test"])
def test_share_of_refusals_depends_on_dev_questions_alone(
    task_files: Any, laptop: Machine, tmp_path: Path, half: str
) -> None:
    """An unanswerable question of the test half must not change what is trained; one of the dev half does."""
    questions: list[dict[str, Any]] = [
        {"id": f"n{n}", "question": f"What does locker {n} cost?", "answers": ["5"]} for n in range(30)
    ]
    file = tmp_path / "asked.jsonl"

    def write() -> None:
        file.write_text("".join(json.dumps(row) + "\n" for row in questions), "utf-8")

    def share() -> float:
        plan = drafted(
            laptop, documents=task_files.documents, examples=task_files.examples, questions=str(file)
        ).plan
        return plan.train_step("hybrid").without_gold

    write()
    assert share() == 0.04
    for row in questions[: 2 if half == "test" else 20]:
        row["answerable"] = False
    # Unanswerable questions are divided by themselves: of 2, the one third that is dev rounds to 1, of 1 to none.
    if half == "test":
        questions[1]["answerable"] = True
    write()
    dev = dev_questions(load_questions(file))
    assert any(not question.answerable for question in dev) is (half == "dev")
    assert share() == (0.15 if half == "dev" else 0.04)


def test_dev_questions_of_the_draft_are_those_of_the_run(
    task_files: Any, laptop: Machine, tmp_path: Path
) -> None:
    plan = drafted(
        laptop,
        documents=task_files.documents,
        examples=task_files.examples,
        questions=task_files.questions,
        folder=tmp_path,
    ).plan
    write_plan(plan, tmp_path / "plan.yaml")
    split = read_data(read_plan(tmp_path / "plan.yaml")).split
    assert dev_questions(load_questions(task_files.questions)) == split.dev


CHOICES = ("prompting", "few-shot", "rag", "lora", "qlora", "full", "hybrid")
NEEDED = {
    "prompting": set(),
    "rag": {"documents"},
    "hybrid": {"documents", "examples"},
    **{name: {"examples"} for name in ("few-shot", "lora", "qlora", "full")},
}
"""The files without which a method has no arm."""


@pytest.mark.parametrize(
    "files", [[k for n, k in enumerate(FILE_KEYS) if mask >> n & 1] for mask in range(8)]
)
def test_note_on_a_recommended_method_names_the_files_that_are_missing(
    task_files: Any, laptop: Machine, files: list[str]
) -> None:
    """For every combination of files and every method: exactly what is missing, and nothing where it is measured."""
    answers = flag_answers((), **{key: getattr(task_files, key) for key in files})
    situation = complete_situation(answers, laptop)
    recommendation = recommend_for_profile(situation.profile)
    for choice in CHOICES:
        by_name = {scored.method.name: scored for scored in recommendation.ranking.methods}
        first = replace(by_name.pop(choice), blockers=())
        ranking = replace(recommendation.ranking, methods=(first, *by_name.values()))
        changed = replace(recommendation, ranking=ranking)
        assert changed.choice == choice
        draft = draft_with_notes(changed, situation)
        if not files:
            assert draft.plan.choice == choice
            assert set(draft.plan.data.not_named) >= NEEDED[choice] | {"questions"}
            continue
        notes = [note for note in draft.notes if f"{choice} is recommended but" in note]
        missing = sorted(NEEDED[choice] - set(files))
        if missing:
            (note,) = notes
            assert f"cannot be measured without {' and '.join(missing)};" in note
            assert f"the plan tests {draft.plan.choice} instead" in note
        else:
            assert not notes
            assert draft.plan.choice == choice


def test_columns_of_the_examples_are_in_the_plan(task_files: Any, laptop: Machine) -> None:
    """The answer becomes data.columns, which the run reads the file by."""
    table = task_files.folder / "pairs.csv"
    table.write_text(
        "frage,antwort,x\n" + "".join(f"Frage {n}?,Antwort {n}.,1\n" for n in range(30)), "utf-8"
    )
    plan = drafted(laptop, "columns=prompt=frage,reply=antwort", examples=table).plan
    assert plan.data.columns == {"prompt": "frage", "reply": "antwort"}
    assert plan.answers["columns"].value == "prompt=frage,reply=antwort"
