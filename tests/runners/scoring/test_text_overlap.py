"""ROUGE-L, chrF, JSON slots and "no value" answers: values calculated by hand, and properties of any text."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.data.refusals import all_no_value, is_no_value
from runners.scoring.scores import (
    chrf,
    json_slots,
    longest_common_subsequence,
    rouge_l,
    slot_f1,
    spurious_slots,
)


def test_rouge_l_matches_example_of_lin_2004() -> None:
    """Lin (2004), 3.1: police killed the gunman; P = R = 3/4 for the first, 1/2 for the second."""
    reference = "police killed the gunman"
    assert rouge_l("police kill the gunman", reference) == pytest.approx(3 / 4)
    assert rouge_l("the gunman kill police", reference) == pytest.approx(2 / 4)
    assert rouge_l("The gunman!", reference) == pytest.approx(2 * 2 / (2 + 4))


@pytest.mark.parametrize(
    ("answer", "reference", "value"),
    [
        ("", "", 1.0),
        ("", "a", 0.0),
        ("a", "", 0.0),
        ("…", "…", 1.0),
        ("…", "!", 0.0),
        ("Grüße aus KÖLN", "grüße aus köln", 1.0),
        ("naïve", "naive", 0.0),
    ],
)
def test_rouge_l_edge_cases(answer: str, reference: str, value: float) -> None:
    assert rouge_l(answer, reference) == value


def plain_length(a: list[str], b: list[str]) -> int:
    """Return the length of the longest common subsequence by dynamic programming."""
    row = [0] * (len(b) + 1)
    for x in a:
        above = row[:]
        for n, y in enumerate(b, 1):
            row[n] = above[n - 1] + 1 if x == y else max(above[n], row[n - 1])
    return row[-1]


@given(st.lists(st.sampled_from("abcd"), max_size=40), st.lists(st.sampled_from("abcd"), max_size=40))
def test_bit_parallel_lcs_equals_dynamic_programming(a: list[str], b: list[str]) -> None:
    assert longest_common_subsequence(a, b) == plain_length(a, b)


def test_chrf_matches_hand_calculation() -> None:
    """Of abc and abd: 2 of 3 letters, 1 of 2 pairs, 0 of 1 triple, so P = R = F = (2/3 + 1/2 + 0) / 3."""
    assert chrf("abc", "abd") == pytest.approx((2 / 3 + 1 / 2) / 3)
    # ab in abcd: P is 1 and 1, R is 2/4 and 1/3; only two orders are in both.
    precision, recall = 1.0, (2 / 4 + 1 / 3) / 2
    assert chrf("ab", "abcd") == pytest.approx(5 * precision * recall / (4 * precision + recall))


def test_chrf_weighs_recall_more_than_precision() -> None:
    assert chrf("abcdef", "abc") > chrf("abc", "abcdef")


@pytest.mark.parametrize(
    ("answer", "reference", "value"),
    [
        ("", "", 1.0),
        ("", "a", 0.0),
        ("a b", "ab", 1.0),
        ("7", "7", 1.0),
        ("x", "y", 0.0),
        ("犬は可", "犬は可", 1.0),
    ],
)
def test_chrf_edge_cases(answer: str, reference: str, value: float) -> None:
    assert chrf(answer, reference) == value


@given(st.text(max_size=60), st.text(max_size=60))
def test_overlap_scores_are_within_0_and_1_and_1_for_equal_texts(a: str, b: str) -> None:
    for score in (rouge_l, chrf):
        assert 0 <= score(a, b) <= 1 + 1e-12
        assert score(a, a) == 1


SENTENCES = (
    "The ferry leaves at eight, and returns before noon; dogs travel free (2 at most).",
    "Die Fähre verläßt den Hafen um 8 Uhr und kehrt vor dem Mittag zurück, auch in STRASSBURG.",
    "渡轮早上八点离开港口，中午之前返回，星期天没有船。",
    "フェリーは朝八時に港を出発し、正午前に戻ります。",
    "تغادر العبارة الميناء في الثامنة صباحا وتعود قبل الظهر ولكن ليس يوم الأحد.",
    "Паром выходит из гавани в восемь утра и возвращается до полудня.",
    "नौका सुबह आठ बजे बंदरगाह से निकलती है और दोपहर से पहले लौट आती है।",
    "…",
    "a",
    "",
)


def text_pairs() -> list[tuple[str, str]]:
    """Return 300 pairs of texts in seven languages: pieces of one sentence, or of two."""
    rng = random.Random(0)
    pairs = []
    for _ in range(300):
        first = rng.choice(SENTENCES)
        second = rng.choice([first, rng.choice(SENTENCES)])
        words = [word for word in second.split() if rng.random() < 0.7]
        start = rng.randrange(len(second) + 1)
        pairs.append((first, rng.choice([" ".join(words), second[start:], second + " " + first])))
    return pairs


def test_rouge_l_equals_rouge_score_with_our_words() -> None:
    from rouge_score import rouge_scorer, tokenizers

    from runners.scoring import scores

    class Words(tokenizers.Tokenizer):
        def tokenize(self, text: str) -> list[str]:
            return scores._words(text)

    scorer = rouge_scorer.RougeScorer(["rougeL"], tokenizer=Words())
    compared = 0
    for a, b in text_pairs():
        if scores._words(a) or scores._words(b):
            assert rouge_l(a, b) == pytest.approx(scorer.score(b, a)["rougeL"].fmeasure, abs=1e-12), (a, b)
            compared += 1
    assert compared > 200
    # Why its own tokeniser is not used: it knows no letters but a to z.
    chinese = SENTENCES[2]
    assert rouge_scorer.RougeScorer(["rougeL"]).score(chinese, chinese)["rougeL"].fmeasure == 0
    assert rouge_l(chinese, chinese) == 1


def chrf_by_definition(answer: str, reference: str) -> float:
    """Return chrF2 as Popović (2015) defines it, over the orders that both texts are long enough for."""
    a, b = "".join(answer.split()), "".join(reference.split())
    if a == b:
        return 1.0
    precisions, recalls = [], []
    for n in range(1, min(6, len(a), len(b)) + 1):
        x, y = (Counter(text[at : at + n] for at in range(len(text) - n + 1)) for text in (a, b))
        precisions.append((x & y).total() / x.total())
        recalls.append((x & y).total() / y.total())
    if not precisions or not sum(precisions):
        return 0.0
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return 5 * precision * recall / (4 * precision + recall)


def test_chrf_keeps_the_values_of_its_definition() -> None:
    for a, b in text_pairs():
        assert chrf(a, b) == pytest.approx(chrf_by_definition(a, b), abs=1e-12), (a, b)


def test_rouge_l_is_symmetric() -> None:
    assert rouge_l("a b c d", "b d") == rouge_l("b d", "a b c d")


GOLD = '{"intent": "GetWeather", "slots": {"place": "Oslo Bay", "day": "friday", "wind": null}}'


def test_json_slots_are_paths_with_normalised_values() -> None:
    slots = json_slots('{"a": {"b": " X  y"}, "c": [1, 1.0, true], "d": null, "e": "", "f": [], "g": 2.5}')
    assert slots == {("a.b", "x y"): 1, ("c[]", "1"): 2, ("c[]", "true"): 1, ("g", "2.5"): 1}
    assert json_slots("5") is None
    assert json_slots("{") is None
    assert json_slots("[" * 100_000) is None, "too deep for the parser"
    assert json_slots("{}") == {}


def test_slot_f1_and_spurious_match_hand_calculation() -> None:
    """Gold: intent, place, day. Given: intent, place wrong, an hour that the gold lacks."""
    gold = json_slots(GOLD)
    assert gold is not None
    answer = '{"intent": "getweather", "slots": {"place": "Bergen", "hour": 3}}'
    assert slot_f1(answer, gold) == pytest.approx(2 * 1 / (3 + 3))
    assert spurious_slots(answer, gold) == pytest.approx(1 / 3)
    assert slot_f1(GOLD, gold) == 1
    assert spurious_slots(GOLD, gold) == 0
    assert slot_f1(f"Sure: {GOLD}", gold) == 0
    assert spurious_slots(f"Sure: {GOLD}", gold) is None
    assert slot_f1("{}", gold) == 0
    assert spurious_slots("{}", gold) == 0


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(max_size=3), JSONS, max_size=3),
    st.dictionaries(st.text(max_size=3), JSONS, max_size=3),
)
def test_slot_scores_of_any_json_are_within_0_and_1(a: dict[str, object], b: dict[str, object]) -> None:
    gold = json_slots(json.dumps(b))
    assert gold is not None
    assert 0 <= slot_f1(json.dumps(a), gold) <= 1
    assert 0 <= (spurious_slots(json.dumps(a), gold) or 0) <= 1
    assert slot_f1(json.dumps(b), gold) == 1
    assert spurious_slots(json.dumps(b), gold) == 0


@pytest.mark.parametrize(
    ("text", "nothing"),
    [
        ("", True),
        ("Not stated.", True),
        ("n/a", True),
        ("NULL", True),
        ("[]", True),
        ("“None”", True),
        ("It is not mentioned in the contract.", True),
        ("That isn’t specified.", True),
        ("It was not given here", True),
        ("12 euros", False),
        ("Not stated, but 12 euros", False),
        ("not stated in clause 7", False),
        ("No.", False),
        ("Dogs are not allowed.", False),
        ("Captain Nil", False),
    ],
)
def test_no_value_is_distinguished_from_value(text: str, nothing: bool) -> None:
    assert is_no_value(text) is nothing


def test_gold_is_no_value_only_when_all_references_are() -> None:
    assert all_no_value(("not stated", "n/a"))
    assert not all_no_value(("not stated", "12"))
    assert not all_no_value(())
