"""Plans drawn up from recommendations: arms, checks, weights, gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advisor.drafting.draft import DraftedPlan, draft_with_notes
from advisor.questionnaire.gather import complete_situation, flag_answers
from advisor.recommendation.recommend import recommend_for_profile
from rag.errors import UsageProblem
from runners.plan.schema import read_plan, write_plan
from runners.plan.steps import TrainStep
from runners.resources.machine import Machine


def drafted(laptop: Machine, *sets: str, folder: Path = Path(), **files: Any) -> DraftedPlan:
    """Draw up a plan from answers and files."""
    situation = complete_situation(flag_answers(sets, **files), laptop)
    return draft_with_notes(recommend_for_profile(situation.profile), situation, folder)


def test_all_arms_in_order(desk: Any, laptop: Machine) -> None:
    """Documents and examples: every arm, the hybrid on retrieval-aware rows from the tuned arm."""
    plan = drafted(
        laptop,
        "behaviour_gap=high",
        documents=desk.documents,
        examples=desk.examples,
        questions=desk.questions,
        prompt=desk.prompt,
    ).plan
    assert [arm.arm for arm in plan.arms] == [
        "prompting",
        "few-shot",
        "long-context",
        "rag",
        "lora",
        "naive-stack",
        "hybrid",
    ]
    assert plan.choice == "hybrid"
    hybrid = plan.train_step("hybrid")
    assert (hybrid.rows, hybrid.start_from, hybrid.method) == ("retrieval", None, "lora")
    assert hybrid.rank == plan.train_step("lora").rank
    assert plan.train_step("lora").reasons
    assert plan.train_step("lora").batch_tokens < hybrid.batch_tokens == 1024, (
        "few short rows, and longer ones"
    )
    assert "would be learnt in" in plan.train_step("lora").reasons["batch_tokens"]
    assert plan.gate.must_beat == ("prompting", "few-shot", "long-context", "rag", "lora")
    assert plan.prompts.system.startswith("Answer in one statement")
    assert plan.checks[0].text == "one statement, then one closing question"
    assert plan.weights["style"] > 0
    assert plan.weight_reasons.keys() == plan.weights.keys()
    assert "house_style" not in plan.weights
    assert plan.predicted["choice"] == "hybrid"
    assert plan.answers["labelled_examples"].source == "counted"


def test_documents_alone(desk: Any, laptop: Machine) -> None:
    """Prompting and retrieval, nothing to tune, no checks, and that is said."""
    found = drafted(laptop, "must_cite=yes", documents=desk.documents, questions=desk.questions)
    assert [arm.arm for arm in found.plan.arms] == ["prompting", "long-context", "rag"]
    assert found.plan.choice == "rag"
    assert found.plan.weights["citation"] > 0
    assert any("no checks of style" in note for note in found.notes)


def test_plain_texts_are_trained_on_but_not_shown_as_examples(
    desk: Any, laptop: Machine, tmp_path: Path
) -> None:
    """Texts have no question: no few-shot, no retrieval-aware rows, no style to check."""
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(3):
        (texts / f"{number}.txt").write_text(f"The lamp of berth {number} burns all night. " * 4000, "utf-8")
    found = drafted(laptop, documents=desk.documents, examples=texts, questions=desk.questions)
    assert {arm.arm for arm in found.plan.arms} <= {"prompting", "long-context", "rag", "lora", "naive-stack"}
    assert all(step.rows == "plain" for step in found.plan.steps if isinstance(step, TrainStep))
    assert any("no checks of style" in note for note in found.notes)
    assert found.plan.answers["unlabelled_tokens"].source == "counted"


def test_examples_alone(desk: Any, laptop: Machine) -> None:
    """No index, no retrieval."""
    plan = drafted(laptop, "behaviour_gap=high", examples=desk.examples, questions=desk.questions).plan
    assert plan.index is None
    assert [arm.arm for arm in plan.arms][:2] == ["prompting", "few-shot"]
    assert "fact_recall" not in plan.weights


def test_full_tuning_is_not_continued_as_an_adapter(
    desk: Any, laptop: Machine, make_rows: Any, make_example: Any
) -> None:
    """A hybrid beside a fully tuned arm starts from the base."""
    make_rows(desk.examples, [make_example(n) for n in range(300)])
    plan = drafted(
        laptop,
        "task_needs_facts=none",
        "behaviour_gap=high",
        documents=desk.documents,
        examples=desk.examples,
    ).plan
    assert plan.choice == "full"
    assert plan.train_step("hybrid").start_from is None


def test_without_memory_there_is_no_tuning_arm(desk: Any, laptop: Machine) -> None:
    """The blocker is told in the notes."""
    found = drafted(
        laptop,
        "behaviour_gap=high",
        "model_params_b=70",
        "gpu_memory_gib=8",
        "gpu_count=1",
        documents=desk.documents,
        examples=desk.examples,
    )
    assert not any(isinstance(step, TrainStep) for step in found.plan.steps)
    assert any("no tuning arm" in note and "8 GiB" in note for note in found.notes)


def test_refusals_come_from_the_examples(
    desk: Any, laptop: Machine, make_rows: Any, make_example: Any
) -> None:
    """Distinct refusals, eight at most; the unanswerable weigh in."""
    rows = [make_example(n) for n in range(60)]
    for n in range(30):
        rows[n]["messages"][1]["content"] = f"That is not in our papers, case {n % 10}. May I ask around?"
        rows[n]["meta"]["refusal"] = True
    make_rows(desk.examples, rows)
    make_rows(desk.questions, [{"question": "Is there a whale?", "answerable": False}])
    plan = drafted(laptop, documents=desk.documents, examples=desk.examples, questions=desk.questions).plan
    assert len(plan.prompts.refusals) == 8
    assert all("not in our papers" in text for text in plan.prompts.refusals)
    assert plan.weights["refusal"] == 0.5


def test_plans_move_with_their_folder(desk: Any, laptop: Machine, tmp_path: Path) -> None:
    """Data paths are relative to the plan and come back absolute; the file reads back the same."""
    plan = drafted(laptop, folder=desk.folder, documents=desk.documents, examples=desk.examples).plan
    assert plan.data.documents == Path("documents")
    assert plan.answers["documents"].value == "documents"
    path = desk.folder / "plan.yaml"
    write_plan(plan, path)
    again = read_plan(path)
    assert again.data.documents == desk.documents
    assert again.model_copy(update={"data": plan.data}) == plan


def test_nothing_to_run(laptop: Machine) -> None:
    """Answers alone give advice, not a plan."""
    with pytest.raises(UsageProblem, match="nothing to run"):
        drafted(laptop, "must_cite=yes")


def test_the_same_situation_gives_the_same_plan(desk: Any, laptop: Machine) -> None:
    """To the last character."""
    files = {"documents": desk.documents, "examples": desk.examples, "questions": desk.questions}
    a, b = (drafted(laptop, "behaviour_gap=high", **files).plan for _ in range(2))
    assert a.digest() == b.digest()


def test_all_documents_go_into_the_prompt_only_where_they_surely_fit(desk: Any, laptop: Machine) -> None:
    """Not where they are many for the model, or for this machine; the drafted bank is chosen on dev questions."""

    def arms(*sets: str) -> dict[str, Any]:
        plan = drafted(
            laptop, *sets, documents=desk.documents, examples=desk.examples, questions=desk.questions
        )
        return {arm.arm: arm for arm in plan.plan.arms}

    whole = arms()["long-context"]
    assert (whole.retrieval, whole.passages) == (True, "all")
    assert arms()["few-shot"].bank == "chosen"
    assert "long-context" not in arms("corpus_tokens=7000")
    assert "long-context" not in arms("corpus_tokens=7000", "model=qwen2.5-0.5b-instruct")
    assert "long-context" in arms("corpus_tokens=3900", "model=qwen2.5-0.5b-instruct")
    assert "classifier" not in arms()


def test_labels_get_a_classifier(desk: Any, laptop: Machine, make_rows: Any, make_example: Any) -> None:
    """A linear head stands beside the models, and a tuned arm must beat it."""
    rows = [make_example(n) for n in range(60)]
    for n, row in enumerate(rows):
        row["messages"][1]["content"] = ("refund", "lost", "hours")[n % 3]
    make_rows(desk.examples, rows)
    plan = drafted(laptop, "behaviour_gap=high", examples=desk.examples, questions=desk.questions).plan
    assert [arm.arm for arm in plan.arms][:3] == ["prompting", "few-shot", "classifier"]
    assert plan.arms[2].classifier
    assert "classifier" in plan.gate.must_beat
