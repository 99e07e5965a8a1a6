"""The interview, driven by a script keyed by question ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from advisor.questionnaire.answers import Answer, Answers
from advisor.questionnaire.gather import complete_situation
from advisor.questionnaire.profile import Profile
from advisor.recommendation.ranking import Ranking
from advisor.wizard.interview import AskedQuestion, Interview, InterviewMove
from advisor.wizard.prompter import offer_probe
from rag.errors import BadInput
from runners.resources.machine import Machine


class Script:
    """Answers by id; a list is used up from the front, a callable is called."""

    def __init__(self, answers: dict[str, Any], reviews: tuple[str, ...] = ()) -> None:
        self.answers = answers
        self.reviews = [*reviews, InterviewMove.DONE]
        self.asked: list[str] = []
        self.said: list[str] = []
        self.seen: list[AskedQuestion] = []
        self.choices: list[tuple[str, str]] = []
        self.saved = 0

    def ask(self, asked: AskedQuestion) -> Any:
        """Answer from the script, else keep the default."""
        key = asked.question.id
        self.asked.append(key)
        self.seen.append(asked)
        given = self.answers.get(key, asked.known.value if asked.known else None)
        if isinstance(given, list):
            given = given.pop(0) if given else None
        return given() if callable(given) else given

    def review(self, answers: Answers, profile: Profile) -> str:
        """Follow the script, then be done."""
        return self.reviews.pop(0)

    def say(self, line: str) -> None:
        """Keep what was said."""
        self.said.append(line)

    def note(self, line: str) -> None:
        """Keep it with what was said."""
        self.said.append(line)

    def moved(self, before: Ranking, after: Ranking, answers: Answers) -> None:
        """Keep who led and who leads."""
        self.choices.append((before.choice, after.choice))

    def save(self, answers: Answers) -> None:
        """Count how often it was asked for."""
        self.saved += 1

    def probe(self, answers: Answers) -> Answers:
        """Settle one answer, as a probe would."""
        return answers.put("probed", {"prompting_pass_rate": 0.1}, "probe of tern: 1 of 10")


Talk = Callable[..., tuple[Script, Answers]]


@pytest.fixture
def talk(laptop: Machine) -> Talk:
    """Run an interview by a script."""

    def run(
        answers: dict[str, Any], reviews: tuple[str, ...] = (), given: Answers | None = None
    ) -> tuple[Script, Answers]:
        script = Script(answers, reviews)
        interview = Interview(script, given or Answers(), lambda found: complete_situation(found, laptop))
        return script, interview.run()

    return run


def test_a_typical_session_asks_few_questions(talk: Talk, desk: Any) -> None:
    """Files answer for themselves; what they say is not asked."""
    script, answers = talk(
        {
            "goal": "help",
            "documents": str(desk.documents),
            "examples": str(desk.examples),
            "questions": str(desk.questions),
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


def test_what_flags_said_is_not_asked(talk: Talk) -> None:
    """And questions that cannot matter are skipped."""
    script, _ = talk({"task_needs_facts": "none"}, given=Answers().put("flag", {"goal": "x", "model": "m"}))
    assert not {"goal", "model", "facts_change", "must_cite"} & set(script.asked)


def test_back_asks_the_one_before(talk: Talk) -> None:
    """Back, a new answer, and on."""
    script, answers = talk(
        {
            "task_needs_facts": ["new", "none"],
            "facts_change": [InterviewMove.BACK],
            "behaviour_gap": "low",
        }
    )
    first = script.asked.index("task_needs_facts")
    assert script.asked[first : first + 3] == ["task_needs_facts", "facts_change", "task_needs_facts"]
    assert answers["task_needs_facts"].value == "none"


def test_back_at_the_first_question_stays(talk: Talk) -> None:
    """There is nothing before it."""
    script, answers = talk({"goal": [InterviewMove.BACK, InterviewMove.BACK, "at last"]})
    assert script.asked[:3] == ["goal"] * 3
    assert answers["goal"].value == "at last"


def test_the_review_changes_any_answer(talk: Talk) -> None:
    """Asked or detected; afterwards the review is shown again."""
    script, answers = talk(
        {"behaviour_gap": ["low", "high"], "ram_gib": 64}, reviews=("behaviour_gap", "ram_gib")
    )
    assert answers["behaviour_gap"].value == "high"
    assert answers["ram_gib"] == Answer(64, "asked")
    assert script.reviews == []


def test_everything_can_be_asked(talk: Talk) -> None:
    """Detected values are offered, and keep their source when they are confirmed."""
    script, answers = talk({}, reviews=(InterviewMove.MORE,))
    assert {"latency_p95_ms", "cpu_cores", "budget_usd"} <= set(script.asked)
    assert answers["cpu_cores"].source == "detected"


def test_back_from_the_review(talk: Talk) -> None:
    """The last question is asked again."""
    script, answers = talk({"model": ["qwen3-4b", "qwen3-8b"]}, reviews=(InterviewMove.BACK,))
    assert script.asked[-2:] == ["model", "model"]
    assert answers["model"].value == "qwen3-8b"


def test_a_bad_file_is_told_and_asked_again(talk: Talk, desk: Any) -> None:
    """A file that cannot be read does not end the conversation, and leaves no trace."""
    broken = desk.folder / "broken.jsonl"
    broken.write_text("{\n", "utf-8")
    script, answers = talk({"examples": [str(broken), str(desk.examples)]})
    assert any("broken.jsonl" in line for line in script.said)
    assert answers["examples"].value == str(desk.examples)


def test_an_interruption_keeps_what_was_answered(laptop: Machine) -> None:
    """KeyboardInterrupt passes through; the answers so far are there."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    script = Script({"goal": "kept", "task_needs_facts": interrupt})
    interview = Interview(script, Answers(), lambda found: complete_situation(found, laptop))
    with pytest.raises(KeyboardInterrupt):
        interview.run()
    assert interview.answers["goal"] == Answer("kept", "asked")


def test_unreadable_answers_from_the_start_are_refused(laptop: Machine) -> None:
    """What a flag names must be there before the first question."""
    given = Answers().put("flag", {"documents": "/nowhere/at/all"})
    with pytest.raises(BadInput):
        Interview(Script({}), given, lambda found: complete_situation(found, laptop))


def test_the_most_questions_that_can_follow_never_rises(talk: Talk, desk: Any) -> None:
    """It is said with each question, falls as answers prune, and is exact at the end."""
    for answers in (
        {"documents": str(desk.documents), "examples": str(desk.examples)},
        {"task_needs_facts": "none", "behaviour_gap": "none"},
        {"task_needs_facts": "new", "model": "some/model"},
    ):
        script, _ = talk(answers)
        most = [asked.most for asked in script.seen]
        assert most == sorted(most, reverse=True)
        assert [asked.number for asked in script.seen] == list(range(1, len(most) + 1))
        spared = most[-1] - len(script.asked)
        assert spared == ("model_params_b" not in script.asked), "the last but one could have opened the last"


def test_each_answer_shows_how_the_lead_moved(talk: Talk) -> None:
    """Before and after, also when nothing moved."""
    script, _ = talk({"task_needs_facts": "new", "behaviour_gap": "none"})
    assert len(script.choices) == len(script.asked)
    moved = [
        (key, pair) for key, pair in zip(script.asked, script.choices, strict=True) if pair[0] != pair[1]
    ]
    assert moved[0] == ("task_needs_facts", ("prompting", "rag"))


def test_a_question_says_whether_it_can_change_the_lead(talk: Talk) -> None:
    """A goal cannot; needing facts can."""
    script, _ = talk({})
    decides = {asked.question.id: asked.decides for asked in script.seen}
    assert not decides["goal"]
    assert decides["task_needs_facts"]


def test_an_answer_that_another_rules_out_is_closed_with_the_reason(talk: Talk) -> None:
    """Data that must stay here cannot go to a hosted model; the question is asked when it is changed."""
    script, _ = talk({"data_must_stay_local": True}, reviews=("hosted_api_allowed",))
    assert "hosted_api_allowed" not in script.asked[:-1]
    assert script.seen[-1].closed == {True: "the data must stay on your own machines"}
    assert script.seen[-1].number == 0


def test_an_unknown_model_is_refused_at_once(talk: Talk) -> None:
    """With the closest name; an id of the hub passes with a note, and then its size is asked."""
    script, answers = talk({"model": ["qwen2.5-7b-instuct", "some/model"], "model_params_b": 7})
    assert "did you mean qwen2.5-7b-instruct?" in script.said[0]
    assert "size of some/model is not known" in script.said[1]
    assert answers["model_params_b"] == Answer(7, "asked")


def test_a_confirmed_default_is_an_answer(talk: Talk) -> None:
    """So that the plan replays without asking for it; a confirmed measurement stays a measurement."""
    _, answers = talk({})
    assert answers["model"].source == "asked"
    assert answers["model_params_b"].source == "detected"


def test_saving_and_the_record_are_moves_of_the_review(laptop: Machine) -> None:
    """Saving comes back to the review; the record goes on to the plan."""
    script = Script({}, (InterviewMove.SAVE, InterviewMove.RECORD))
    interview = Interview(script, Answers(), lambda found: complete_situation(found, laptop))
    interview.run()
    assert script.saved == 1
    assert interview.record


def test_a_probe_at_the_review_adds_its_answers_and_moves_the_ranking(talk: Talk) -> None:
    """What a person said stays; the probed answer carries its source."""
    script, answers = talk(
        {"task_needs_facts": "none", "behaviour_gap": "high"}, reviews=(InterviewMove.PROBE,)
    )
    assert answers["prompting_pass_rate"] == Answer(0.1, "probed", "probe of tern: 1 of 10")
    assert answers["behaviour_gap"] == Answer("high", "asked")
    assert len(script.choices) == len(script.asked) + 1


def test_the_probe_is_offered_where_there_is_something_to_ask(desk: Any) -> None:
    """Questions, with documents or examples; never by itself to an endpoint."""
    given = {"documents": str(desk.documents), "questions": str(desk.questions)}
    assert offer_probe(Profile.of(given))
    assert not offer_probe(Profile.of({"questions": str(desk.questions)}))
    assert not offer_probe(Profile.of({"documents": str(desk.documents)}))
    assert not offer_probe(Profile.of({**given, "model": "openai:tern@http://127.0.0.1:1/v1"}))
