"""The gate: cuts set on dev questions, hits in the order of their answers, other wordings, logs, no model."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np
import pytest

from rag.errors import BadInput
from rag.grounding import refusal
from rag.grounding.refusal import DRIFT_SIGNALS, AnswerCuts, RefusalSignals, RefusalThreshold
from rag.refusal import gate
from rag.refusal.drift import LEVEL, DriftWatch, compare_questions
from rag.refusal.gate import DevQuestion, GateSettings
from rag.refusal.relevance import BESIDE, UNCITED, check_citations
from rag.types import Chunk, Citation, Hit


class ScriptedReader:
    """Reads a log odds out of the text: ``text 2.5`` answers with 2.5 what shares its first word."""

    truncated = 0

    def scores(self, question: str, texts: Sequence[str]) -> np.ndarray:
        return np.array([float(text.split()[-1]) for text in texts], dtype=np.float32)


class ScriptedIndex:
    """Finds for ``known 3.5 ...`` a passage in its words with log odds 3.5, for ``other ...`` one in other words."""

    def __init__(self, make_chunk: Callable[..., Chunk]) -> None:
        self.make_chunk = make_chunk

    def search_many(
        self, questions: Sequence[str], k: int, without: Sequence[Collection[str]] | None = None
    ) -> list[list[Hit]]:
        found = []
        for n, question in enumerate(questions):
            kind, value, *rest = question.split()
            if without and without[n]:
                value = "-5"
            body = " ".join(rest) if kind == "known" else "something else"
            first = self.make_chunk("unrelated words -6.0", id=1)
            found.append(
                [Hit(first, 1.0, 0.5, 0.0), Hit(self.make_chunk(f"{body} {value}", id=2), 0.9, 0.4, 1.0)]
            )
        return found

    def read(self, reader: object, question: str, hits: Sequence[Hit], depth: int) -> list[Hit]:
        assert isinstance(reader, ScriptedReader | gate._Remembering)
        scores = reader.scores(question, [hit.chunk.text for hit in hits[:depth]])
        return [replace(hit, answers=float(score)) for hit, score in zip(hits, scores, strict=False)]


@pytest.fixture
def index(make_chunk: Callable[..., Chunk]) -> ScriptedIndex:
    return ScriptedIndex(make_chunk)


def dev(kind: str, values: Sequence[float], wording: int = 0) -> list[DevQuestion]:
    return [
        DevQuestion(
            question=f"{kind} {value} ferry dogs deck cabin fare {n}",
            doc="a.md",
            group=f"q{n}",
            wording=wording,
        )
        for n, value in enumerate(values)
    ]


READING = GateSettings(reader=ScriptedReader())


def test_each_side_is_set_on_its_own_dev_questions(index: ScriptedIndex) -> None:
    fitted = gate.fit_gate(index, dev("known", [3.0 + n / 10 for n in range(40)]), READING)
    assert fitted.how == "answers"
    assert fitted.cuts is not None
    assert fitted.cuts.same_words == pytest.approx(3.15 - gate.MARGIN)  # 2 of 40 lie below 3.15: 3.0 and 3.1
    assert fitted.cuts.other_words == gate.SHIPPED_CUTS.other_words
    assert (
        "in the documents' words it is set on 40 dev questions; for other words it is the shipped"
        in fitted.note
    )
    worded = dev("known", [4.0] * 20) + dev("other", [0.5] * 20, 1) + dev("other", [-2.0] * 20, 2)
    both = gate.fit_gate(index, worded, READING)
    assert both.cuts is not None
    assert both.cuts.other_words == pytest.approx(-2.0)  # the worst wording decides
    assert both.wordings == 40
    assert json.loads(json.dumps(both.to_json())) == both.to_json()
    assert RefusalThreshold.from_json(both.to_json()).to_json() == both.to_json()
    assert RefusalThreshold.from_json(both.to_json()).cuts == both.cuts


def test_held_out_shares_keep_the_wordings_of_a_question_together(index: ScriptedIndex) -> None:
    values = [3.0 * n for n in range(20)]  # further apart than the margin below the cut
    fitted = gate.fit_gate(
        index, dev("known", values) + dev("known", values, 1), replace(READING, most_wrong=0.05)
    )
    assert fitted.chosen is not None
    # the lowest question and its wording are below the cut that the others set, the next ones are not
    assert fitted.chosen.wrong == pytest.approx(2 / 40)
    assert fitted.chosen.right == 1.0
    assert fitted.made == 40
    assert fitted.auroc == 1.0


def test_hits_that_answer_come_first(index: ScriptedIndex) -> None:
    threshold = gate.fit_gate(index, dev("known", [3.0] * 20), READING)
    question = "known 1.5 ferry dogs"
    hits, decision = gate.read_hits(
        index, threshold, ScriptedReader(), question, index.search_many([question], 5)[0]
    )
    assert [hit.answers for hit in hits] == [1.5, -6.0]
    assert decision.refuse
    assert decision.signals.answers == 1.5
    off = gate.fit_gate(index, dev("known", [3.0] * 20), replace(READING, gate="off"))
    hits, decision = gate.read_hits(index, off, None, question, index.search_many([question], 5)[0])
    assert [hit.chunk.id for hit in hits] == [1, 2]
    assert not decision.refuse


def test_lenient_refuses_only_what_no_wording_answers(index: ScriptedIndex) -> None:
    lenient = gate.fit_gate(index, dev("known", [3.0] * 20), replace(READING, gate="lenient"))
    assert lenient.gate == "lenient"
    for value, refused in ((gate.LENIENT_CUT - 0.1, True), (gate.LENIENT_CUT + 0.1, False)):
        question = f"other {value} ferry"
        _, decision = gate.read_hits(
            index, lenient, ScriptedReader(), question, index.search_many([question], 5)[0]
        )
        assert decision.refuse == refused


def test_a_log_may_lose_a_quarter_at_most(index: ScriptedIndex) -> None:
    log = [f"other {-1 - n / 10} alpha beta gamma delta epsilon {n}" for n in range(40)]
    fitted = gate.fit_gate(index, dev("known", [3.0] * 20), READING, log)
    assert fitted.cuts is not None
    assert fitted.cuts.other_words == pytest.approx(-3.95)
    assert len(fitted.sample) == 60


def test_without_the_model_the_search_decides_and_says_so(index: ScriptedIndex) -> None:
    settings = GateSettings(why_not_read="most questions are in German, and the model reads English")
    fitted = gate.fit_gate(index, dev("known", [3.0] * 20), settings)
    assert fitted.how == "logistic"
    assert not fitted.read
    assert "not read before an answer: most questions are in German" in fitted.note
    assert gate.fit_gate(index, dev("known", [3.0] * 3), settings).how == "default"
    assert gate.fit_gate(index, [], replace(settings, gate="lenient")).weights == {"dense": 1.0}


def test_few_dev_questions_leave_the_shipped_cuts(index: ScriptedIndex) -> None:
    fitted = gate.fit_gate(index, dev("known", [9.0] * 3), READING)
    assert fitted.cuts == gate.SHIPPED_CUTS
    assert gate.fit_gate(index, [], READING).chosen is None


def test_cuts_between_the_shares_are_interpolated() -> None:
    cuts = AnswerCuts(other_words=-1.0, same_words=3.0, few=0.25, many=0.75)
    assert [cuts.at(share) for share in (0, 0.25, 0.5, 0.75, 1)] == [-1, -1, 1, 3, 3]


def test_drift_is_said_once_and_surely(index: ScriptedIndex) -> None:
    threshold = gate.fit_gate(index, dev("known", [3.0 + n / 10 for n in range(40)]), READING)
    watch = DriftWatch(threshold)
    for n in range(19):
        watch.add(f"question {n}", RefusalSignals(answers=-1.0, coverage=0.1))
    assert watch.compare() is None
    watch.add("question 0", RefusalSignals(answers=-1.0, coverage=0.1))
    assert watch.compare() is None  # the same question again
    watch.add("question 19", RefusalSignals(answers=-1.0, coverage=0.1))
    line = watch.note()
    assert "the 20 questions asked differ from the 40 that refusals were fitted on" in line
    assert "tunewise plan --wordings FILE" in line
    assert watch.note() == ""


def test_drift_keeps_its_level() -> None:
    """Of comparisons of questions with others of the same kind, at most one in a hundred is called sure."""
    rng = np.random.default_rng(0)
    alarms, trials = 0, 200
    for _ in range(trials):
        asked, fitted = rng.normal(size=(30, len(DRIFT_SIGNALS))), rng.normal(size=(60, len(DRIFT_SIGNALS)))
        drift = compare_questions(asked.tolist(), fitted.tolist())
        alarms += drift is not None and drift.sure
    assert alarms <= 2 * LEVEL * trials


def test_an_answer_beside_the_question_is_marked() -> None:
    cited = Citation(
        n=1,
        doc="deck.md",
        title="Deck",
        page=None,
        line_start=1,
        line_end=1,
        char_start=0,
        char_end=9,
        quote="on deck 6 -3.0",
        answer_start=0,
        answer_end=20,
    )
    uncited = replace(cited, n=0, quote="", supported=False, support="unsupported")

    class Reader(ScriptedReader):
        def scores(self, question: str, texts: Sequence[str]) -> np.ndarray:
            return np.array([float(text.rstrip(".").split()[-1]) for text in texts], dtype=np.float32)

    marked, support = check_citations("What does the special cost?", [cited, uncited], Reader())
    assert support == -3.0
    assert [(one.support, one.supported) for one in marked] == [(BESIDE, False), ("unsupported", False)]
    good = replace(cited, quote="on deck 6 4.0")
    right, support = check_citations("Where is it?", [good], Reader())
    assert right[0].supported
    assert support == 4.0
    assert check_citations("Where?", [uncited], Reader()) == ((uncited,), UNCITED)
    partly = replace(cited, support="partly")
    levels = ([cited], [cited, partly], [cited, uncited])
    assert [check_citations("Where?", own, None)[1] for own in levels] == [1.0, -1.0, UNCITED]


@pytest.mark.parametrize("key", ["cuts", "read", "gate", "wordings", "sample"])
def test_files_without_a_key_are_refused(key: str) -> None:
    body = refusal.default_threshold().to_json()
    assert RefusalThreshold.from_json(body) == refusal.default_threshold()
    del body[key]
    with pytest.raises(BadInput, match=f"the refusal threshold is damaged: .*{key}"):
        RefusalThreshold.from_json(body)
