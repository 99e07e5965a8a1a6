"""A streamed answer equals the whole answer, citation marks included, however it is cut into pieces."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
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

assert settings.default is not None  # the profile that tests/conftest.py loads


def whole_answer(words: str, cited: bool) -> str:
    """Return an answer as it is shown when it is complete."""
    if not cited:
        return strip_invisible(words)
    return attach_citations(neutralise_links(strip_marks(words), ["q", *TEXTS]), HITS)[0]


def stream_pieces(words: str, cuts: list[int], cited: bool = True) -> tuple[str, StreamedAnswer]:
    """Return the joined pieces that are shown of text cut at these offsets; nothing shown is ever changed."""
    streamed = StreamedAnswer(HITS, "q", cited=cited)
    shown = ""
    for start, end in zip([0, *cuts], [*cuts, len(words)], strict=True):
        shown += streamed.add(words[start:end])
        assert shown == streamed.shown
    plain = strip_invisible(strip_marks(words)) if cited else strip_invisible(words)
    shown += streamed.finish(whole_answer(words, cited), plain)
    return shown, streamed


@pytest.mark.parametrize("words", SAID)
@pytest.mark.parametrize("cited", [True, False])
def test_streamed_pieces_join_to_whole_answer(words: str, cited: bool) -> None:
    source = random.Random(words)
    cuttings = [list(range(1, len(words))), []]
    cuttings += [sorted(source.sample(range(len(words)), k=min(5, len(words)))) for _ in range(20)]
    for cuts in cuttings:
        assert stream_pieces(words, cuts, cited)[0] == whole_answer(words, cited)


def test_words_stream_before_sentence_end_and_mark_follows_it() -> None:
    streamed = StreamedAnswer(HITS, "q", cited=True)
    assert streamed.add("Dogs travel free on") == "Dogs travel free"
    assert streamed.add(" the car deck.") == " on the car"
    assert streamed.add(" Cats") == " deck. [1]"
    assert streamed.add(" pay [a](b") == " Cats pay"
    assert streamed.add(") so much") == ""


def test_marks_written_by_model_are_never_shown() -> None:
    for words in (
        "Dogs are allowed [1]. Cats too [2].",
        "【3†source】 Yes [1, 2][ 3 ]!",
        "\x1b[1m a[1] [a] [1",
        "[[1]2] 【no】 【",
    ):
        streamed = StreamedAnswer((), "q", strip=True)
        shown = "".join(map(streamed.add, words))
        whole = strip_invisible(strip_marks(words))
        assert whole.startswith(shown)
        assert shown + streamed.finish(whole, whole) == whole


@settings(max_examples=settings.default.max_examples // 5)
@given(st.lists(st.sampled_from([*" [];,1【】\n", "[1]", " [2]", "no", "\x1b[", "a", "【3†x】"])))
def test_any_text_without_passages_streams_completely(parts: list[str]) -> None:
    streamed = StreamedAnswer((), "q", strip=True)
    shown = "".join(map(streamed.add, parts))
    whole = strip_invisible(strip_marks("".join(parts)))
    assert shown + streamed.finish(whole, whole) == whole


@settings(max_examples=settings.default.max_examples // 5)
@given(
    st.lists(
        st.sampled_from([*" .?!\n", "Dogs travel free", "[1]", "7 days", "a.m.", "3.5", "- x", "no", "Yes,"])
    )
)
def test_any_text_streams_completely(parts: list[str]) -> None:
    words = "".join(parts)
    shown, _ = stream_pieces(words, list(range(1, len(words))))
    # Where what came last changed a mark that was out already, the words are whole all the same.
    assert strip_marks(shown).split() == strip_marks(whole_answer(words, True)).split()


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


def cite_whole(answer: str, hits: list[Hit], formulas: tuple[str, ...]) -> tuple[str, tuple[Citation, ...]]:
    """Return a whole answer with citations: each sentence cited alone, then moved to its offset."""
    text = strip_marks(answer)
    marked, at = "", 0
    citations: list[Citation] = []
    for start, end in sentence_spans(text):
        marked += text[at:start]
        sentence, offset, at = text[start:end], len(marked), end
        marked += sentence
        if sentence.strip() in formulas or not is_factual(sentence):
            continue
        _, support = supporting_passages(sentence, [hit.chunk for hit in hits])
        alone = attach_citations(sentence, hits)
        assert alone[0] == sentence + "".join(f" [{one.position + 1}]" for one in support)
        citations += [
            replace(citation, answer_start=offset, answer_end=offset + len(sentence)) for citation in alone[1]
        ]
        marked += "".join(f" [{one.position + 1}]" for one in support)
    return marked + text[at:], tuple(citations)


def stream_answer_of(words: str, cuts: list[int], hits: list[Hit]) -> tuple[str, Answer, StreamedAnswer]:
    """Return the joined pieces of text cut at these offsets, and the answer built from the stream."""
    question, retrieved = Question("q", "When does the last ferry leave?"), Retrieved(tuple(hits), "", None)  # type: ignore[arg-type]
    streamed = stream_of(PLAN, question, retrieved)
    shown = "".join(
        streamed.add(words[start:end]) for start, end in zip([0, *cuts], [*cuts, len(words)], strict=True)
    )
    answer = finish_answer(
        PLAN, question, retrieved, (), Completion(words, 0, 0, 0.0, "stop"), streamed.citer
    )
    return shown + streamed.finish(answer.marked, strip_invisible(answer.text)), answer, streamed


@given(st.lists(st.sampled_from(PARTS), max_size=14), st.data())
def test_streamed_answer_is_cited_like_whole_answer(parts: list[str], data: st.DataObject) -> None:
    """Text, marks and citations are the same bytes as without a stream, for answers, refusals and conflicts."""
    words = "".join(parts)
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(words) - 1)), max_size=40)) if words else [])
    shown, answer, _ = stream_answer_of(words, [cut for cut in cuts if cut < len(words)], CONFLICTING)
    question, retrieved = answer.question, answer.found
    plain = finish_answer(PLAN, question, retrieved, (), answer.completion)
    assert answer == plain
    if not answer.refused:
        harmless = neutralise_links(
            strip_marks(words), [question.question, *(hit.chunk.text for hit in CONFLICTING)]
        )
        assert (answer.marked, answer.citations) == cite_whole(harmless, CONFLICTING, FORMULAS)
        assert answer.conflicts
    assert strip_invisible(shown) == shown
    assert "evil.example" not in shown


@settings(max_examples=settings.default.max_examples // 5)
@given(st.lists(st.sampled_from(PLAIN_PARTS)))
@example(["Cats pay 3.50 euros", "\n", "2. ", "Good day from Fern Hill!"])
def test_pieces_without_markup_equal_shown_answer(parts: list[str]) -> None:
    """Without markup nothing has to be taken back, so the pieces make up the answer as it is shown."""
    words = "".join(parts)
    shown, answer, _ = stream_answer_of(words, list(range(1, len(words))), CONFLICTING)
    assert shown == answer.marked or answer.refused


@settings(max_examples=settings.default.max_examples // 5)
@given(st.lists(st.sampled_from([part for part in PARTS if part.strip()]), min_size=1), st.data())
def test_sentences_can_be_added_in_any_grouping(parts: list[str], data: st.DataObject) -> None:
    text = strip_marks(" ".join(parts))
    ends = [end for _, end in sentence_spans(text)]
    chosen = sorted(data.draw(st.sets(st.sampled_from(ends)))) if ends else []
    citer = SentenceCiter(CONFLICTING, FORMULAS)
    cuts = [0, *(end for end in chosen if end < len(text)), len(text)]
    added = "".join(citer.add(text[start:end]) for start, end in pairwise(cuts))
    assert (citer.text, tuple(citer.citations)) == cite_whole(text, CONFLICTING, FORMULAS)
    assert added == citer.text


@pytest.mark.parametrize("count", [10, 40, 160])
def test_each_sentence_is_compared_with_passages_once(count: int) -> None:
    """Work grows with the sentences, not with their square: in the stream and in the answer concluded from it."""
    words = " ".join(f"Boat {n} carries {n + 2} dogs on the car deck." for n in range(count))
    _, answer, streamed = stream_answer_of(words, list(range(1, len(words))), CONFLICTING)
    assert len(answer.citations) == streamed.citer.compared == count
    # Of the text, only the sentence that is open is read again.
    assert len(streamed._raw) < 120
    assert streamed._settled > len(words) - 120


def test_formulas_get_no_citation_while_streaming() -> None:
    words = f"{FORMULAS[0]} Dogs travel free on the car deck. {FORMULAS[1]} Cats"
    question = Question("q", "q")
    streamed = stream_of(PLAN, question, Retrieved(tuple(HITS), "", None))  # type: ignore[arg-type]
    assert streamed.add(words) == f"{FORMULAS[0]} Dogs travel free on the car deck. [1] {FORMULAS[1]}"
    assert [citation.n for citation in streamed.citer.citations] == [1]


def test_link_definition_counts_only_at_line_start() -> None:
    """What follows a settled sentence in its line does not begin a line."""
    line = "Dogs travel free on the car deck. [note]: cats pay 3.50 euros. So it is."
    words = f"{line}\n[note]: https://evil.example x. Yes. Aye"
    shown, answer, _ = stream_answer_of(words, list(range(1, len(words))), HITS)
    assert shown == answer.marked
    assert "[note]: cats" in shown
    assert shown.count("note") == 1
