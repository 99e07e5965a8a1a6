"""An answer that unfolds piece by piece ends as the whole answer, marks included, whatever it is made of."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.cite import attach, strip_marks
from rag.clean import visible
from rag.links import inert
from rag.types import Chunk, Hit
from runners.unfolding import Unfolding

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
        return visible(words)
    return attach(inert(strip_marks(words), ["q", *TEXTS]), HITS)[0]


def unfolded(words: str, cuts: list[int], cited: bool = True) -> tuple[str, Unfolding]:
    """The pieces that are shown of an answer said in these pieces, joined; nothing is ever taken back."""
    unfolding = Unfolding(HITS, "q", cited)
    said = ""
    for start, end in zip([0, *cuts], [*cuts, len(words)], strict=True):
        said += unfolding.add(words[start:end])
        assert said == unfolding.shown
    plain = visible(strip_marks(words)) if cited else visible(words)
    said += unfolding.finish(ended(words, cited), plain)
    return said, unfolding


@pytest.mark.parametrize("words", SAID)
@pytest.mark.parametrize("cited", [True, False])
def test_the_pieces_are_the_whole(words: str, cited: bool) -> None:
    source = random.Random(words)
    cuttings = [list(range(1, len(words))), []]
    cuttings += [sorted(source.sample(range(len(words)), k=min(5, len(words)))) for _ in range(20)]
    for cuts in cuttings:
        assert unfolded(words, cuts, cited)[0] == ended(words, cited)


def test_words_come_before_their_sentence_is_over_and_a_mark_right_after_it() -> None:
    unfolding = Unfolding(HITS, "q", cited=True)
    assert unfolding.add("Dogs travel free on") == "Dogs travel free"
    assert unfolding.add(" the car deck.") == " on the car"
    assert unfolding.add(" Cats") == " deck. [1]"
    assert unfolding.add(" pay [a](b") == " Cats pay"
    assert unfolding.add(") so much") == ""


def test_marks_that_a_model_makes_up_are_never_shown() -> None:
    for words in (
        "Dogs are allowed [1]. Cats too [2].", "【3†source】 Yes [1, 2][ 3 ]!", "\x1b[1m a[1] [a] [1", "[[1]2] 【no】 【",
    ):  # fmt: skip
        unfolding = Unfolding((), "q", strip=True)
        said = "".join(map(unfolding.add, words))
        whole = visible(strip_marks(words))
        assert whole.startswith(said)
        assert said + unfolding.finish(whole, whole) == whole


@settings(max_examples=settings.default.max_examples // 5)
@given(st.lists(st.sampled_from([*" [];,1【】\n", "[1]", " [2]", "no", "\x1b[", "a", "【3†x】"])))
def test_any_words_without_passages_end_whole(parts: list[str]) -> None:
    unfolding = Unfolding((), "q", strip=True)
    said = "".join(map(unfolding.add, parts))
    whole = visible(strip_marks("".join(parts)))
    assert said + unfolding.finish(whole, whole) == whole


@settings(max_examples=settings.default.max_examples // 5)
@given(
    st.lists(
        st.sampled_from([*" .?!\n", "Dogs travel free", "[1]", "7 days", "a.m.", "3.5", "- x", "no", "Yes,"])
    )
)
def test_any_words_end_whole(parts: list[str]) -> None:
    words = "".join(parts)
    said, _ = unfolded(words, list(range(1, len(words))))
    # Where what came last changed a mark that was out already, the words are whole all the same.
    assert strip_marks(said).split() == strip_marks(ended(words, True)).split()
