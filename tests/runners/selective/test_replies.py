"""The arm of nearest replies: its rows, its cut, its files, and its answers, with other embedders and in German."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rag.embedding.embedder import Embedder
from rag.errors import BadInput
from runners.data.examples import Example
from runners.data.questions import Question
from runners.models.resolve import resolve_model
from runners.plan.schema import Plan, parse_plan
from runners.selective.cuts import MOST_WRONG
from runners.selective.faq import faq_pairs
from runners.selective.replies import (
    FACTS,
    REPLIES_FOLDER,
    VECTORS,
    check_replies_plan,
    fit_replies,
    load_replies,
    reply_rows,
)

TOPICS = ("fare", "berth", "kiosk", "ticket", "bicycle", "harbour", "lounge", "ramp", "buoy", "winch")
WAYS = (
    "how much is the {0}",
    "what does the {0} cost",
    "price of the {0} please",
    "tell me what the {0} costs",
)
REFUSAL = "I could not find that in our documents."


def example(question: str, reply: str, line: int = 1) -> Example:
    """Return an example of one turn each."""
    return Example(({"role": "user", "content": question}, {"role": "assistant", "content": reply}), {}, line)


def rows() -> tuple[Example, ...]:
    """Forty questions, four of each topic with the same reply."""
    return tuple(
        example(way.format(topic), f"The {topic} costs {n} crowns.", n)
        for n, topic in enumerate(TOPICS)
        for way in WAYS
    )


def dev(count: int = 40) -> tuple[Question, ...]:
    """Questions on the topics in other words."""
    ways = ("is the {0} dear", "say the price of the {0}", "the {0} costs what", "and the {0}")
    asked = [
        Question(f"d{n}-{m}", way.format(topic), reference=f"The {topic} costs {n} crowns.")
        for n, topic in enumerate(TOPICS)
        for m, way in enumerate(ways)
    ]
    return tuple(asked[:count])


def plan(cost: str = "low", **more: Any) -> Plan:
    """Return a plan with an arm of nearest replies."""
    body = {
        "name": "p",
        "choice": "prompting",
        "model": {"name": "m"},
        "data": {"examples": "e", "questions": "q"},
        "steps": [{"kind": "evaluate", "arm": "nearest-reply", "nearest_reply": True}],
        "weights": {"exact_match": 1},
        "answers": {"wrong_answer_cost": {"value": cost, "source": "asked"}},
    }
    return parse_plan({**body, **more})


def fit(
    run: Path, encoder: Any, own: Sequence[Example] = (), asked: Sequence[Question] = (), **more: Any
) -> Any:
    """Fit the arm and return its facts."""
    return fit_replies(plan(**more), "nearest-reply", own or rows(), asked, encoder, run, "one")


def answers(run: Path, encoder: Any, texts: Sequence[str]) -> list[Any]:
    """Return the completions of questions."""
    chats = [[{"role": "user", "content": text}] for text in texts]
    return load_replies(run, "nearest-reply", lambda: encoder, REFUSAL).generate(chats, 1)


def test_reply_of_the_nearest_question_is_given_word_for_word(words: Any, tmp_path: Path) -> None:
    facts = fit(tmp_path, words, asked=dev())
    assert (facts["on"], facts["questions"], facts["most_wrong"]) == ("dev", 40, MOST_WRONG["low"])
    assert facts["given"]
    assert facts["wrong"] <= 0.3 * facts["given"]
    near, far, empty = answers(tmp_path, words, ["How much is the kiosk?", "may dogs sail", ""])
    assert (near.text, near.completion_tokens) == ("The kiosk costs 2 crowns.", 0)
    assert near.nearest.given
    assert near.nearest.question == "how much is the kiosk"
    assert far.text == empty.text == REFUSAL
    assert not far.nearest.given
    assert not empty.nearest.given
    folder = tmp_path / REPLIES_FOLDER / "nearest-reply"
    assert {path.name for path in folder.iterdir()} == {VECTORS, FACTS, "manifest.json"}


@pytest.mark.parametrize(
    ("count", "cost", "on"), [(0, "low", "examples"), (9, "low", "examples"), (10, "low", "dev")]
)
def test_few_dev_questions_leave_the_training_questions_to_fit_on(
    words: Any, tmp_path: Path, count: int, cost: str, on: str
) -> None:
    facts = fit(tmp_path, words, asked=dev(count), cost=cost)
    assert facts["on"] == on
    assert ("training questions" in facts["notes"][-1]) == (on == "examples")


def test_too_few_questions_of_both_give_no_reply_and_say_so(words: Any, tmp_path: Path) -> None:
    facts = fit(tmp_path, words, own=rows()[:20], asked=dev(20), cost="high")
    assert facts["cut"] is None
    assert "no reply is given: at most 5% of the replies may be wrong" in facts["notes"][-1]
    assert "fewer than the 63" in facts["notes"][-1]
    assert answers(tmp_path, words, ["how much is the fare"])[0].text == REFUSAL


def test_dev_question_that_is_a_training_question_does_not_count_itself(words: Any, tmp_path: Path) -> None:
    """Each topic once: without its own row no dev question has its reply nearby."""
    own = [example(f"price of the {topic}", f"It is {n}.") for n, topic in enumerate(TOPICS)]
    asked = [
        Question(str(n), f"Price of the {topic}?", reference=f"It is {n}.") for n, topic in enumerate(TOPICS)
    ]
    facts = fit(tmp_path, words, own=own, asked=asked)
    assert (facts["on"], facts["cut"]) == ("dev", None)


def test_faults_of_the_rows_are_counted_and_said() -> None:
    raw = Example(({"role": "assistant", "content": "A text."},), {}, 1)
    own = [
        example("When open?", "At six."),
        example("when open", "At nine."),
        example("When open?", "At nine."),
        example("Where?", " "),
        example("  ", "At six."),
        raw,
    ]
    read = reply_rows(own, None)
    assert (read.questions, read.replies) == (("When open?",), ("At nine.",))
    assert (read.of, read.without_question, read.without_reply, read.contradicting) == (6, 2, 1, 1)
    assert read.notes() == [
        "2 rows without a question: left out",
        "1 row without a reply: left out",
        "1 question with different replies: the most frequent one is given",
    ]
    with pytest.raises(BadInput, match="no reply to give"):
        check_replies_plan(plan(), [example("Where?", "")])


def test_same_inputs_are_not_fitted_again_and_damage_is_refused(words: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no replies for the arm"):
        answers(tmp_path, words, ["x"])
    first = fit(tmp_path, words)
    folder = tmp_path / REPLIES_FOLDER / "nearest-reply"
    before = (folder / VECTORS).stat().st_mtime_ns
    assert fit(tmp_path, words) == first
    assert (folder / VECTORS).stat().st_mtime_ns == before
    with (folder / VECTORS).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(BadInput, match="damaged"):
        answers(tmp_path, words, ["x"])


@pytest.mark.real
def test_labels_and_german_replies_with_real_embedders(
    tmp_path: Path, words: Any, little_bert: Callable[..., Path]
) -> None:
    """The default embedder and a small BERT made from a config; a run's replies are refused to another embedder."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel

    german = {
        "Das Geld wird erstattet.": ("Bekomme ich mein Geld zurück?", "Bitte erstatten Sie die Fahrkarte."),
        "Fragen Sie am Fundbüro.": ("Ich habe meine Tasche verloren.", "Mein Mantel ist weg."),
    }
    own = [example(text, reply) for reply, texts in german.items() for text in texts for _ in range(3)]
    own += [
        example(f"{text} Nummer {n}", reply)
        for reply, texts in german.items()
        for text in texts
        for n in range(4)
    ]
    vocabulary = sorted({word for e in own for word in e.question.split()})
    tokenizer = Tokenizer(WordLevel({w: n for n, w in enumerate(["?", *vocabulary])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "bert").mkdir()
    encoders = [Embedder(resolve_model("all-minilm-l6-v2").folder)]
    encoders.append(Embedder(little_bert(tmp_path / "bert", tokenizer)))
    for n, encoder in enumerate(encoders):
        facts = fit(tmp_path / str(n), encoder, own=own)
        assert facts["cut"] is not None, facts
        reply = answers(tmp_path / str(n), encoder, ["Ich habe meine Tasche verloren!"])[0]
        assert reply.text == "Fragen Sie am Fundbüro."
    with pytest.raises(BadInput, match="another embedder"):
        answers(tmp_path / "0", encoders[1], ["x"])


def test_documents_that_are_questions_with_answers_are_replies_too(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(
        "# Häufige Fragen\n\n## Wann?\n\nUm sechs.\n\n## Wo?\nAm Kai.\n## Wie viel?\n", "utf-8"
    )
    (tmp_path / "b.md").write_text("# Fares\n\n## Who pays?\nAll.\n\n## Rules\nNone.\n", "utf-8")
    (tmp_path / "c.csv").write_text("Question,Answer\nWho?,We.\n", "utf-8")
    (tmp_path / "d.csv").write_text("name,price\nadult,6\n", "utf-8")
    rows_of_json = [{"question": "Why?", "answer": "Because."}, {"question": "When?"}]
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of_json), "utf-8")
    assert faq_pairs(tmp_path) == [
        ("Wann?", "Um sechs."),
        ("Wo?", "Am Kai."),
        ("Wie viel?", ""),
        ("Who?", "We."),
    ]
    read = reply_rows([], tmp_path)
    assert (read.of_documents, read.without_reply) == (3, 1)
    assert faq_pairs(tmp_path / "absent") == []
