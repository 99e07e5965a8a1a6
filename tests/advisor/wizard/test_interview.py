"""The interview, driven by a script of answers by question id."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from advisor.costs.call_prices import profile_price
from advisor.probe.offer import offer_probe_of
from advisor.questionnaire.answers import Answer, Answers
from advisor.questionnaire.gather import complete_situation
from advisor.questionnaire.profile import Profile
from advisor.recommendation.ranking import Ranking
from advisor.recommendation.recommend import recommend_for_profile
from advisor.wizard.interview import AskedQuestion, Interview, InterviewMove
from advisor.wizard.probe_in_wizard import measure_first_line, offer_probe
from rag.errors import BadInput
from runners.catalog.models import DEFAULT_MODEL
from runners.resources.machine import Machine

WORDS = [f"{first}{last}" for first in "bcdfgkmprt" for last in ("ane", "ello", "umo")]
"""Thirty names of goods."""


class Script:
    """Answers by question id; a list is used up from the front, a callable is called."""

    def __init__(self, answers: dict[str, Any], reviews: tuple[str, ...] = ()) -> None:
        self.answers = answers
        self.reviews = [*reviews, InterviewMove.DONE]
        self.asked: list[str] = []
        self.lines: list[str] = []
        self.questions: list[AskedQuestion] = []
        self.choices: list[tuple[str, str]] = []
        self.saved = 0
        self.offered_columns: list[tuple[str, ...]] = []
        self.gaps = [{"behaviour_gap": Answer("high", "probed", f"probe of {DEFAULT_MODEL}: 2 of 25")}]

    def ask(self, asked: AskedQuestion) -> Any:
        """Answer from the script, else keep the default."""
        key = asked.question.id
        self.asked.append(key)
        self.questions.append(asked)
        value = self.answers.get(key, asked.known.value if asked.known else None)
        if isinstance(value, list):
            value = value.pop(0) if value else None
        return value() if callable(value) else value

    def review(self, answers: Answers, profile: Profile) -> str:
        """Return the next move of the script, at its end DONE."""
        return self.reviews.pop(0)

    def say(self, line: str) -> None:
        """Record the line."""
        self.lines.append(line)

    def note(self, line: str) -> None:
        """Record the line."""
        self.lines.append(line)

    def moved(self, before: Ranking, after: Ranking, answers: Answers) -> None:
        """Record the leading method before and after."""
        self.choices.append((before.choice, after.choice))

    def columns(self, names: Sequence[str]) -> str | None:
        """Take the first two columns as prompt and reply; none of them when the script says so."""
        self.offered_columns.append(tuple(names))
        return None if self.answers.get("columns") == "none" else f"prompt={names[0]},reply={names[1]}"

    def save(self, answers: Answers) -> None:
        """Count the calls."""
        self.saved += 1

    def probe(self, answers: Answers) -> Answers:
        """Settle one answer, as a probe would."""
        return answers.put("probed", {"prompting_pass_rate": 0.1}, "probe of tern: 1 of 10")

    def measure(self, answers: Answers) -> Answers:
        """Settle the gap in behaviour, as a probe would; a second one settles nothing."""
        return answers.add("probed", self.gaps.pop(0))


RunInterview = Callable[..., tuple[Script, Answers]]


@pytest.fixture
def interview(laptop: Machine) -> RunInterview:
    """Return a function that runs an interview by a script."""

    def run(
        answers: dict[str, Any], reviews: tuple[str, ...] = (), given: Answers | None = None
    ) -> tuple[Script, Answers]:
        script = Script(answers, reviews)
        interview = Interview(script, given or Answers(), lambda answers: complete_situation(answers, laptop))
        return script, interview.run()

    return run


def test_typical_session_asks_few_questions(interview: RunInterview, task_files: Any) -> None:
    """What files tell is not asked."""
    script, answers = interview(
        {
            "goal": "help",
            "documents": str(task_files.documents),
            "examples": str(task_files.examples),
            "questions": str(task_files.questions),
            "prompt": "Be kind.",
            "facts_change": "slow",
            "must_cite": True,
            "behaviour_gap": "high",
        }
    )
    assert len(script.asked) <= 15
    assert "task_needs_facts" not in script.asked
    assert "labelled_examples" not in script.asked
    assert answers["labelled_examples"].source == "counted"
    assert answers["must_cite"] == Answer(True, "asked")


def test_answers_of_flags_are_not_asked(interview: RunInterview) -> None:
    """Questions that cannot matter are skipped as well."""
    script, _ = interview(
        {"task_needs_facts": "none"}, given=Answers().put("flag", {"goal": "x", "model": "m"})
    )
    assert not {"goal", "model", "facts_change", "must_cite"} & set(script.asked)


def test_back_asks_previous_question(interview: RunInterview) -> None:
    """Back, a new answer, and on."""
    script, answers = interview(
        {
            "task_needs_facts": ["new", "none"],
            "facts_change": [InterviewMove.BACK],
            "behaviour_gap": "low",
        }
    )
    first = script.asked.index("task_needs_facts")
    assert script.asked[first : first + 3] == ["task_needs_facts", "facts_change", "task_needs_facts"]
    assert answers["task_needs_facts"].value == "none"


def test_back_at_first_question_asks_it_again(interview: RunInterview) -> None:
    """There is nothing before it."""
    script, answers = interview({"runs_on": [InterviewMove.BACK, InterviewMove.BACK, "provider"]})
    assert script.asked[:3] == ["runs_on"] * 3
    assert answers["runs_on"].value == "provider"


def test_review_changes_any_answer(interview: RunInterview) -> None:
    """Asked or detected; afterwards the review is shown again."""
    script, answers = interview(
        {"behaviour_gap": ["low", "high"], "ram_gib": 64}, reviews=("behaviour_gap", "ram_gib")
    )
    assert answers["behaviour_gap"].value == "high"
    assert answers["ram_gib"] == Answer(64, "asked")
    assert script.reviews == []


def test_ask_everything_from_review(interview: RunInterview) -> None:
    """Detected values are offered, and keep their source when they are confirmed."""
    script, answers = interview({}, reviews=(InterviewMove.MORE,))
    assert {"latency_p95_ms", "cpu_cores", "budget_usd"} <= set(script.asked)
    assert answers["cpu_cores"].source == "detected"


def test_back_from_review_asks_last_question(interview: RunInterview) -> None:
    """The last question is asked again."""
    script, answers = interview({"wrong_answer_cost": ["low", "high"]}, reviews=(InterviewMove.BACK,))
    assert script.asked[-2:] == ["wrong_answer_cost", "wrong_answer_cost"]
    assert answers["wrong_answer_cost"].value == "high"


def test_bad_file_is_reported_and_asked_again(interview: RunInterview, task_files: Any) -> None:
    """A file that cannot be read does not end the conversation."""
    broken = task_files.folder / "broken.jsonl"
    broken.write_text("{\n", "utf-8")
    script, answers = interview({"examples": [str(broken), str(task_files.examples)]})
    assert any("broken.jsonl" in line for line in script.lines)
    assert answers["examples"].value == str(task_files.examples)


def test_columns_of_examples_are_asked_where_their_names_do_not_tell(
    interview: RunInterview, task_files: Any
) -> None:
    """Their names are offered, the answer is kept, and another file does not get the columns of the first."""
    table = task_files.folder / "pairs.csv"
    rows = "".join(f"Wann fährt Boot {n}?,Boot {n} fährt um {n % 12}.\n" for n in range(30))
    table.write_text("frage,antwort\n" + rows, "utf-8")
    script, answers = interview({"examples": str(table)})
    assert script.offered_columns == [("frage", "antwort")]
    assert script.asked.count("examples") == 1
    assert answers["columns"] == Answer("prompt=frage,reply=antwort", "asked")
    assert answers["labelled_examples"] == Answer(30, "counted", answers["labelled_examples"].note), (
        "the rows are read by these columns"
    )
    script, answers = interview({"examples": [str(table), str(task_files.examples)]}, reviews=("examples",))
    assert "columns" not in answers
    assert answers["labelled_examples"].value == 60
    script, answers = interview({"examples": [str(table), str(task_files.examples)], "columns": "none"})
    assert script.asked.count("examples") == 2
    assert "columns" not in answers


def test_documents_are_asked_again_where_the_examples_are_facts(
    interview: RunInterview, tmp_path: Path
) -> None:
    rows = [{"prompt": f"What is a {word}?", "completion": f"A {word} is £3.50."} for word in WORDS]
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (tmp_path / "prices.md").write_text("# Prices\n\nA loaf is £3.50.\n", "utf-8")
    documents = str(tmp_path / "prices.md")
    script, answers = interview(
        {"documents": [None, documents], "examples": str(tmp_path / "facts.jsonl"), "behaviour_gap": "low"}
    )
    assert script.asked[3:6] == ["documents", "examples", "documents"]
    assert any("which documents hold these?" in line for line in script.lines)
    assert answers["documents"].value == documents
    none_named, answers = interview(
        {"examples": str(tmp_path / "facts.jsonl"), "behaviour_gap": "low"},
    )
    assert none_named.asked.count("documents") == 2, "asked again once, not for ever"
    assert answers["task_needs_facts"].value == "new"


def test_documents_without_the_answers_are_said_at_once(
    interview: RunInterview, example: Path, tmp_path: Path
) -> None:
    (tmp_path / "prices.md").write_text("# Prices\n\nA loaf is £3.50. A plain roll costs 55p.\n", "utf-8")
    questions = str(example / "questions.jsonl")
    script, _ = interview({"documents": str(tmp_path / "prices.md"), "questions": questions})
    said = [line for line in script.lines if line.startswith("the documents hold the right answer to only")]
    assert len(said) == 1
    own, _ = interview({"documents": str(example / "documents"), "questions": questions})
    assert not [line for line in own.lines if "the documents hold" in line]


def test_interruption_keeps_answers(laptop: Machine) -> None:
    """KeyboardInterrupt is not caught; the answers so far are in the interview."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    script = Script({"goal": "kept", "task_needs_facts": interrupt})
    interview = Interview(script, Answers(), lambda answers: complete_situation(answers, laptop))
    with pytest.raises(KeyboardInterrupt):
        interview.run()
    assert interview.answers["goal"] == Answer("kept", "asked")


def test_missing_file_of_flag_is_rejected_at_start(laptop: Machine) -> None:
    """A file that a flag names must exist before the first question."""
    flag_answers = Answers().put("flag", {"documents": "/nowhere/at/all"})
    with pytest.raises(BadInput):
        Interview(Script({}), flag_answers, lambda answers: complete_situation(answers, laptop))


def test_maximum_of_questions_never_rises(interview: RunInterview, task_files: Any) -> None:
    """It is shown with each question, falls as answers rule others out, and is exact at the end."""
    for answers in (
        {"documents": str(task_files.documents), "examples": str(task_files.examples)},
        {"task_needs_facts": "none", "behaviour_gap": "none"},
        {"task_needs_facts": "new", "model": "some/model"},
    ):
        script, _ = interview(answers)
        most = [asked.most for asked in script.questions]
        assert most == sorted(most, reverse=True)
        assert [asked.number for asked in script.questions] == list(range(1, len(most) + 1))
        assert most[-1] == len(script.asked)


def test_each_answer_reports_ranking_change(interview: RunInterview) -> None:
    """Before and after, also when nothing changed."""
    script, _ = interview({"task_needs_facts": "new", "behaviour_gap": "none"})
    assert len(script.choices) == len(script.asked)
    moved = [
        (key, pair) for key, pair in zip(script.asked, script.choices, strict=True) if pair[0] != pair[1]
    ]
    assert moved[0] == ("task_needs_facts", ("prompting", "rag"))


def test_question_tells_whether_it_can_change_leader(interview: RunInterview) -> None:
    """A goal cannot; needing facts can."""
    script, _ = interview({})
    decides = {asked.question.id: asked.decides for asked in script.questions}
    assert not decides["goal"]
    assert decides["task_needs_facts"]


def test_ruled_out_answer_is_closed_with_reason(interview: RunInterview) -> None:
    """Data that must stay local cannot go to a hosted model; the question is asked only when it is changed."""
    script, _ = interview({"data_must_stay_local": True}, reviews=("hosted_api_allowed",))
    assert "hosted_api_allowed" not in script.asked[:-1]
    assert script.questions[-1].closed == {True: "the data must stay on your own machines"}
    assert script.questions[-1].number == 0


def test_unknown_model_is_rejected_with_suggestion(interview: RunInterview) -> None:
    """An id of the hub passes with a note, and then its size is asked."""
    script, answers = interview({"model": ["qwen2.5-7b-instuct", "some/model"], "model_params_b": 7})
    assert "did you mean qwen2.5-7b-instruct?" in script.lines[0]
    assert "size of some/model is not known" in script.lines[1]
    assert answers["model_params_b"] == Answer(7, "asked")


def test_confirmed_place_becomes_an_answer(interview: RunInterview) -> None:
    """A confirmed measurement stays a measurement, and a suggested model a suggestion; it is said what is asked here."""
    script, answers = interview({})
    assert answers["runs_on"] == Answer("here", "asked")
    assert (answers["model"].source, answers["model_params_b"].source) == ("default", "detected")
    assert "the advice is for qwen3-4b-instruct-2507; the trial here asks smollm2" in script.lines[0]


def test_place_brings_the_answers_that_describe_it(interview: RunInterview) -> None:
    """A machine with its GPUs, replaced by another place; a hosted model with its prices."""
    server = {"runs_on": "other", "gpu_kind": "cuda", "gpu_count": 2, "gpu_memory_gib": 24}
    _, answers = interview({"runs_on": server})
    assert answers["gpu_count"] == Answer(2, "asked")
    assert answers.value("ram_gib") is None, "this laptop's memory says nothing of the server"
    assert answers.value("model") == "qwen3-8b"
    hosted = "openai:m@https://api.openai.com/v1"
    prices = {"usd_per_million_input": "0.5", "usd_per_million_output": 2}
    _, answers = interview(
        {"runs_on": [server, "provider"], "model": {"model": hosted, **prices}}, reviews=("runs_on", "model")
    )
    assert not answers.from_person("gpu_memory_gib")
    assert answers["usd_per_million_input"] == Answer(0.5, "asked")
    assert profile_price(Profile.of(answers)).output == 2
    assert answers["hosted_api_allowed"] == Answer(True, "asked"), "a provider's model was chosen"
    own = "openai:m@http://127.0.0.1:9/v1"
    assert interview({"runs_on": "provider", "model": own})[1].value("hosted_api_allowed") is None


def test_review_saves_profile_and_requests_record(laptop: Machine) -> None:
    """Saving returns to the review; the record goes on to the plan."""
    script = Script({}, (InterviewMove.SAVE, InterviewMove.RECORD))
    interview = Interview(script, Answers(), lambda answers: complete_situation(answers, laptop))
    interview.run()
    assert script.saved == 1
    assert interview.record


def test_review_asks_for_a_tuned_retriever(laptop: Machine) -> None:
    """It goes on to the plan, as the record does."""
    script = Script({}, (InterviewMove.TUNE,))
    interview = Interview(script, Answers(), lambda answers: complete_situation(answers, laptop))
    interview.run()
    assert interview.tune_retriever
    assert not interview.record


def test_probe_at_review_adds_answers(interview: RunInterview) -> None:
    """A person's answers stay; the probed answer has its source."""
    script, answers = interview(
        {"task_needs_facts": "none", "behaviour_gap": "high"}, reviews=(InterviewMove.PROBE,)
    )
    assert answers["prompting_pass_rate"] == Answer(0.1, "probed", "probe of tern: 1 of 10")
    assert answers["behaviour_gap"] == Answer("high", "asked")
    assert len(script.choices) == len(script.asked) + 1


def test_measurement_at_the_question_answers_it(interview: RunInterview, task_files: Any) -> None:
    """It is offered with its minutes, its answer is that of the question, and the ranking moves."""
    files = {key: str(getattr(task_files, key)) for key in ("documents", "examples", "questions")}
    files["model"] = DEFAULT_MODEL
    script, answers = interview(
        {**files, "behaviour_gap": [InterviewMove.MEASURE], "must_cite": True, "facts_change": "slow"}
    )
    assert answers["behaviour_gap"].value == "high"
    assert answers["behaviour_gap"].source == "probed"
    assert script.asked.count("behaviour_gap") == 1
    asked = next(asked for asked in script.questions if asked.question.id == "behaviour_gap")
    assert asked.measurement is not None
    assert asked.measurement.minutes >= 1
    assert not asked.measurement.missing
    before, after = script.choices[script.asked.index("behaviour_gap")]
    assert (before, after) == ("rag", "hybrid")


def test_measurement_that_leaves_it_open_asks_again(laptop: Machine, task_files: Any) -> None:
    """The second time it is not offered, with the reason."""
    files = {key: str(getattr(task_files, key)) for key in ("documents", "examples", "questions")}

    script = Script({**files, "model": DEFAULT_MODEL, "behaviour_gap": [InterviewMove.MEASURE, "low"]})
    script.gaps = [{}]
    walked = Interview(script, Answers(), lambda answers: complete_situation(answers, laptop))
    assert walked.run()["behaviour_gap"] == Answer("low", "asked")
    offers = [asked.measurement for asked in script.questions if asked.question.id == "behaviour_gap"]
    assert [bool(offer and offer.missing) for offer in offers] == [False, True]


def test_measurement_says_what_is_missing(task_files: Any) -> None:
    """Style is judged on examples, skill on questions with documents."""
    rows = {"examples": str(task_files.examples), "labelled_examples": 60}
    documents = {"documents": str(task_files.documents)}
    assert offer_probe_of(Profile.of({})).missing == "it needs examples, or documents and questions"
    assert offer_probe_of(Profile.of(documents)).missing == "it needs examples, or questions"
    assert offer_probe_of(Profile.of({}, 12)).missing == "it needs examples, or documents"
    assert not offer_probe_of(Profile.of(rows)).missing
    assert not offer_probe_of(Profile.of(documents, 12)).missing
    assert offer_probe_of(Profile.of(rows, 90)).seconds > offer_probe_of(Profile.of(rows)).seconds
    assert "endpoint" in offer_probe_of(Profile.of({**rows, "model": "openai:t@http://h/v1"})).missing


def test_another_model_drops_what_was_measured(interview: RunInterview, task_files: Any) -> None:
    """A measurement is about one model."""
    files = {key: str(getattr(task_files, key)) for key in ("documents", "examples", "questions")}
    script, answers = interview(
        {**files, "behaviour_gap": [InterviewMove.MEASURE], "model": [DEFAULT_MODEL, "qwen3-4b"]},
        reviews=("model",),
    )
    assert answers.value("behaviour_gap") is None
    assert any("behaviour_gap, measured with" in line for line in script.lines)


def test_unknown_instead_of_a_measured_value_says_that_it_stays(interview: RunInterview) -> None:
    """At the review, where any answer can be changed."""
    script, answers = interview({"ram_gib": [None]}, reviews=("ram_gib",))
    assert answers["ram_gib"].source == "detected"
    assert script.lines[-1] == "16.0 stays: it was detected"


def test_review_names_price_and_reason_where_a_probe_decides() -> None:
    answers = {"examples": "rows.jsonl", "questions": "q.jsonl", "labelled_examples": 90}
    profile = Profile.of({**answers, "task_needs_facts": "none"}, 90)
    line = measure_first_line(recommend_for_profile(profile))
    assert "min here (longer on a busy machine) and measures" in line
    assert line.startswith("the choice depends on behaviour_gap, which a probe can measure: let")
    assert line.endswith("choose measure first")
    known = profile.change("behaviour_gap", "high").change("output_format", "json")
    assert measure_first_line(recommend_for_profile(known)) == ""


def test_probe_is_offered_only_with_questions_and_data(task_files: Any) -> None:
    """Questions with documents or examples; never an endpoint."""
    answers = {"documents": str(task_files.documents), "questions": str(task_files.questions)}
    assert offer_probe(Profile.of(answers))[0].startswith("measure first: ")
    assert not offer_probe(Profile.of({"questions": str(task_files.questions)}))
    assert not offer_probe(Profile.of({"documents": str(task_files.documents)}))
    assert not offer_probe(Profile.of({**answers, "model": "openai:tern@http://127.0.0.1:1/v1"}))


def test_several_models_are_named_at_the_question_of_the_model(interview: RunInterview) -> None:
    """With minutes and dollars, which are not counted as further questions; the size of one model is not asked."""
    models = "small=smollm2-135m-instruct, big=openai:m@http://127.0.0.1:9999/v1"
    script, answers = interview(
        {"model": [InterviewMove.SEVERAL], "models": models, "minutes": 30, "usd": "none"}
    )
    at = script.asked.index("model")
    assert script.asked[at : at + 4] == ["model", "models", "minutes", "usd"]
    assert [asked.number for asked in script.questions[at + 1 : at + 4]] == [0, 0, 0]
    assert {key: answers[key].value for key in ("models", "minutes", "usd")} == {
        "models": models,
        "minutes": 30,
        "usd": "none",
    }
    assert answers["model"].source == "default"
    assert "model_params_b" not in script.asked
    most = [asked.most for asked in script.questions if asked.number]
    assert most == sorted(most, reverse=True)


def test_back_from_several_models_and_one_model_after_them(interview: RunInterview) -> None:
    """Going back asks for the model again; one model, named later, drops those that were to be compared."""
    script, answers = interview(
        {
            "model": [InterviewMove.SEVERAL, InterviewMove.SEVERAL, "gemma-3-270m"],
            "models": [InterviewMove.BACK, "a=smollm2-135m-instruct, b=gemma-3-270m"],
            "minutes": 5,
        },
        reviews=("model",),
    )
    assert script.asked.count("model") == 3
    assert answers["model"].value == "gemma-3-270m"
    assert not {"models", "minutes", "usd"} & {key for key in answers if answers[key].value is not None}


def test_unknown_model_among_several_is_refused(interview: RunInterview) -> None:
    script, answers = interview(
        {
            "model": [InterviewMove.SEVERAL],
            "models": ["a=smollm2-135m-instruct, b=nonsense", "a=smollm2-135m-instruct, b=gemma-3-270m"],
        }
    )
    assert any("unknown model 'nonsense'" in line for line in script.lines)
    assert answers["models"].value == "a=smollm2-135m-instruct, b=gemma-3-270m"
