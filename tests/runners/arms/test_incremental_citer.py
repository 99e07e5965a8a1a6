"""An answer shown piece by piece ends as the whole answer, marks included, whatever it is made of."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.grounding.citations import (
    SentenceCiter,
    attach_citations,
    is_factual,
    strip_marks,
    supporting_passages,
)
from rag.text.sanitize import neutralise_links, strip_invisible
from rag.text.words import sentence_spans
from rag.types import Chunk, Citation, Hit
from runners.arms.answer import Answer, StreamedAnswer, finish_answer, stream_of
from runners.arms.retriever import Retrieved
from runners.data.questions import Question
from runners.inference.types import Completion
from runners.plan.schema import Plan, parse_plan

TEXTS = (
    "Dogs travel free on the car deck. Cats pay 3.50 euros, in a box.",
    "The last ferry leaves at 9 p.m. on Sundays. See https://ferry.example/times for more.",
    "Found passports go to the police after 7 days. Other things stay for 50 days.",
)
HITS = [
    Hit(Chunk(n, f"{n}.md", f"Notes {n}", 0, text, 0, len(text)), 1.0, 1.0, 1.0)
    for n, text in enumerate(TEXTS)
]
SAID = (
    "Dogs travel free on the car deck. Cats pay 3.50 euros, in a box. Shall I book?",
    "Found passports go to the police after 7 days [3]. Other things stay for 50 days.[1, 2] Aye!",
    "It leaves at 9 p.m. on Sundays, e.g. by the ferry. The last ferry leaves at 9 p.m. on Sundays.",
    "See https://ferry.example/times for more. Or https://evil.example/?q=secret instead.",
    "![x](https://evil.example/p.png) Dogs travel free on the car deck.\n\n- Cats pay 3.50 euros.\n- Dogs are free",
    "Look at [this](https://evil.example) now. <b onclick=x>Dogs travel free</b> on the car deck.",
    "A \x1b[31mred\x1b[0m word. Dogs travel free on the car deck (really). \u202eback",
    "No end",
    "",
    "…  Hm.   3. apples\n3. pears\n\n\nDogs travel free on the car deck?! Yes.",
)


def ended(words: str, cited: bool) -> str:
    """An answer as it is shown when it is whole."""
    if not cited:
        return strip_invisible(words)
    return attach_citations(neutralise_links(strip_marks(words), ["q", *TEXTS]), HITS)[0]


def in_pieces(words: str, cuts: list[int], cited: bool = True) -> tuple[str, StreamedAnswer]:
    """The pieces that are shown of an answer said in these pieces, joined; nothing is ever taken back."""
    streamed = StreamedAnswer(HITS, "q", cited=cited)
    said = ""
    for start, end in zip([0, *cuts], [*cuts, len(words)], strict=True):
        said += streamed.add(words[start:end])
        assert said == streamed.shown
    plain = strip_invisible(strip_marks(words)) if cited else strip_invisible(words)
    said += streamed.finish(ended(words, cited), plain)
    return said, streamed


@pytest.mark.parametrize("words", SAID)
@pytest.mark.parametrize("cited", [True, False])
def test_the_pieces_are_the_whole(words: str, cited: bool) -> None:
    source = random.Random(words)
    cuttings = [list(range(1, len(words))), []]
    cuttings += [sorted(source.sample(range(len(words)), k=min(5, len(words)))) for _ in range(20)]
    for cuts in cuttings:
        assert in_pieces(words, cuts, cited)[0] == ended(words, cited)


def test_words_come_before_their_sentence_is_over_and_a_mark_right_after_it() -> None:
    streamed = StreamedAnswer(HITS, "q", cited=True)
    assert streamed.add("Dogs travel free on") == "Dogs travel free"
    assert streamed.add(" the car deck.") == " on the car"
    assert streamed.add(" Cats") == " deck. [1]"
    assert streamed.add(" pay [a](b") == " Cats pay"
    assert streamed.add(") so much") == ""


def test_marks_that_a_model_makes_up_are_never_shown() -> None:
    for words in (
        "Dogs are allowed [1]. Cats too [2].",
        "【3†source】 Yes [1, 2][ 3 ]!",
        "\x1b[1m a[1] [a] [1",
        "[[1]2] 【no】 【",
    ):
        streamed = StreamedAnswer((), "q", strip=True)
        said = "".join(map(streamed.add, words))
        whole = strip_invisible(strip_marks(words))
        assert whole.startswith(said)
        assert said + streamed.finish(whole, whole) == whole


@settings(max_examples=settings.default.max_examples // 5)
@given(st.lists(st.sampled_from([*" [];,1【】\n", "[1]", " [2]", "no", "\x1b[", "a", "【3†x】"])))
def test_any_words_without_passages_end_whole(parts: list[str]) -> None:
    streamed = StreamedAnswer((), "q", strip=True)
    said = "".join(map(streamed.add, parts))
    whole = strip_invisible(strip_marks("".join(parts)))
    assert said + streamed.finish(whole, whole) == whole


@settings(max_examples=settings.default.max_examples // 5)
@given(
    st.lists(
        st.sampled_from([*" .?!\n", "Dogs travel free", "[1]", "7 days", "a.m.", "3.5", "- x", "no", "Yes,"])
    )
)
def test_any_words_end_whole(parts: list[str]) -> None:
    words = "".join(parts)
    said, _ = in_pieces(words, list(range(1, len(words))))
    # Where what came last changed a mark that was out already, the words are whole all the same.
    assert strip_marks(said).split() == strip_marks(ended(words, True)).split()


FORMULAS = ("Good day from Fern Hill!", "Happy sailing.")
REFUSAL = "Our notes do not say."
PLAN: Plan = parse_plan(
    {
        "name": "p",
        "choice": "rag",
        "model": {"name": "m"},
        "data": {"documents": "d", "questions": "q"},
        "weights": {"fact_recall": 1},
        "steps": [{"kind": "index"}],
        "prompts": {"refusals": [REFUSAL], "formulas": list(FORMULAS)},
    }
)
OTHER = Chunk(3, "new.md", "Notes 1", 0, "The last ferry leaves at 10 p.m. on Sundays.", 0, 44)
CONFLICTING = [*HITS, Hit(OTHER, 1.0, 1.0, 1.0)]
PARTS = (
    *FORMULAS,
    REFUSAL,
    "Dogs travel free on the car deck.",
    "Cats pay 3.50 euros",
    ", in a box.",
    "The last ferry leaves at 9 p.m. on Sundays.",
    "It leaves at 9 p.m.",
    "Other things stay for 50 days",
    "e.g.",
    "Found passports go to the police after 7 days and dogs travel free.",
    "Shall I book?",
    "!",
    "?",
    "- ",
    "2. ",
    " ",
    " ",
    " ",
    "\n",
    "\n\n",
    "[1]",
    " [2, 3]",
    "【3†s】",
    "[",
    "](",
    "<",
    ">",
    "</b>",
    "<b onclick=x>",
    "See https://ferry.example/times for more.",
    "https://evil.example/?q=1",
    "[this. one](https://evil.example)",
    "[a]: https://evil.example",
    "\x1b[31m",
    "\x1b]0;A title. More",
    "\x07",
    "\u202e",
)
PLAIN_PARTS = tuple(
    part for part in PARTS if part.isspace() or not re.search(r"[\[\]<>【]|//|[^\n -~]", part)
)
"""Parts without marks, markup, addresses and escape sequences."""


def cited_as_before(
    answer: str, hits: list[Hit], formulas: tuple[str, ...]
) -> tuple[str, tuple[Citation, ...]]:
    """A whole answer cited at one go: each sentence by itself, then moved to its offset in the answer."""
    text = strip_marks(answer)
    marked, at = "", 0
    citations: list[Citation] = []
    for start, end in sentence_spans(text):
        marked += text[at:start]
        sentence, offset, at = text[start:end], len(marked), end
        marked += sentence
        if sentence.strip() in formulas or not is_factual(sentence):
            continue
        _, found = supporting_passages(sentence, [hit.chunk for hit in hits])
        alone = attach_citations(sentence, hits)
        assert alone[0] == sentence + "".join(f" [{one.position + 1}]" for one in found)
        moved = {"answer_start": offset, "answer_end": offset + len(sentence)}
        citations += [replace(citation, **moved) for citation in alone[1]]
        marked += "".join(f" [{one.position + 1}]" for one in found)
    return marked + text[at:], tuple(citations)


def answered(words: str, cuts: list[int], hits: list[Hit]) -> tuple[str, Answer, StreamedAnswer]:
    """The pieces that are shown of an answer generated in these pieces, joined, and the answer concluded from it."""
    question, found = Question("q", "When does the last ferry leave?"), Retrieved(tuple(hits), "", None)  # type: ignore[arg-type]
    streamed = stream_of(PLAN, question, found)
    shown = "".join(
        streamed.add(words[start:end]) for start, end in zip([0, *cuts], [*cuts, len(words)], strict=True)
    )
    answer = finish_answer(PLAN, question, found, (), Completion(words, 0, 0, 0.0, "stop"), streamed.citer)
    return shown + streamed.finish(answer.marked, strip_invisible(answer.text)), answer, streamed


@given(st.lists(st.sampled_from(PARTS), max_size=14), st.data())
def test_the_answer_is_cited_as_the_whole_is_however_it_came(parts: list[str], data: st.DataObject) -> None:
    """Text, marks and citations are the same bytes as without a stream, for answers, refusals and conflicts."""
    words = "".join(parts)
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(words) - 1)), max_size=40)) if words else [])
    shown, answer, _ = answered(words, [cut for cut in cuts if cut < len(words)], CONFLICTING)
    question, found = answer.question, answer.retrieved
    plain = finish_answer(PLAN, question, found, (), answer.completion)
    assert answer == plain
    if not answer.refused:
        harmless = neutralise_links(
            strip_marks(words), [question.question, *(hit.chunk.text for hit in CONFLICTING)]
        )
        assert (answer.marked, answer.citations) == cited_as_before(harmless, CONFLICTING, FORMULAS)
        assert answer.conflicts
    assert strip_invisible(shown) == shown
    assert "evil.example" not in shown


@settings(max_examples=settings.default.max_examples // 5)
@given(st.lists(st.sampled_from(PLAIN_PARTS)))
def test_plain_pieces_are_the_shown_answer(parts: list[str]) -> None:
    """Without markup nothing has to be taken back, so the pieces make up the answer as it is shown."""
    words = "".join(parts)
    shown, answer, _ = answered(words, list(range(1, len(words))), CONFLICTING)
    assert shown == answer.marked or answer.refused


@settings(max_examples=settings.default.max_examples // 5)
@given(st.lists(st.sampled_from([part for part in PARTS if part.strip()]), min_size=1), st.data())
def test_sentences_can_be_added_in_any_groups(parts: list[str], data: st.DataObject) -> None:
    text = strip_marks(" ".join(parts))
    ends = [end for _, end in sentence_spans(text)]
    chosen = sorted(data.draw(st.sets(st.sampled_from(ends)))) if ends else []
    citer = SentenceCiter(CONFLICTING, FORMULAS)
    cuts = [0, *(end for end in chosen if end < len(text)), len(text)]
    added = "".join(citer.add(text[start:end]) for start, end in pairwise(cuts))
    assert (citer.text, tuple(citer.citations)) == cited_as_before(text, CONFLICTING, FORMULAS)
    assert added == citer.text


@pytest.mark.parametrize("count", [10, 40, 160])
def test_each_sentence_is_compared_with_the_passages_once(count: int) -> None:
    """Work grows with the sentences, not with their square: in the stream and in the answer concluded from it."""
    words = " ".join(f"Boat {n} carries {n + 2} dogs on the car deck." for n in range(count))
    _, answer, streamed = answered(words, list(range(1, len(words))), CONFLICTING)
    assert len(answer.citations) == streamed.citer.compared == count
    # Of the text, only the sentence that is open is read again.
    assert len(streamed._raw) < 120
    assert streamed._settled > len(words) - 120


def test_formulas_are_left_alone_while_the_answer_is_made() -> None:
    words = f"{FORMULAS[0]} Dogs travel free on the car deck. {FORMULAS[1]} Cats"
    question = Question("q", "q")
    streamed = stream_of(PLAN, question, Retrieved(tuple(HITS), "", None))  # type: ignore[arg-type]
    assert streamed.add(words) == f"{FORMULAS[0]} Dogs travel free on the car deck. [1] {FORMULAS[1]}"
    assert [citation.n for citation in streamed.citer.citations] == [1]


def test_a_definition_is_one_only_at_the_beginning_of_a_line() -> None:
    """What follows a settled sentence in its line does not begin a line."""
    line = "Dogs travel free on the car deck. [note]: cats pay 3.50 euros. So it is."
    words = f"{line}\n[note]: https://evil.example x. Yes. Aye"
    shown, answer, _ = answered(words, list(range(1, len(words))), HITS)
    assert shown == answer.marked
    assert "[note]: cats" in shown
    assert shown.count("note") == 1
