"""Retrieval metrics, against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from rag.evaluation import metrics
from rag.grounding import context
from rag.types import Chunk, Hit

RAW = "Dogs travel on deck.\n\nAn adult single costs 14.50 euros. Children pay half."
DOGS, FARE = (0, 20), (22, 56)


def hit(start: int, end: int, doc: str = "fares.md") -> Hit:
    return Hit(Chunk(start, doc, "", 0, RAW[start:end], start, end), 1.0, 1.0, 1.0)


def shown(*hits: Hit, room: int = 10_000) -> list[context.Passage]:
    return context.select_passages(hits, room, len)


def test_hit_recall_and_mrr() -> None:
    found = ["a", "b", "b", "c"]
    assert [metrics.hit_at_k(found, {"b"}, k) for k in (1, 2)] == [0, 1]
    assert metrics.recall_at_k(found, {"b", "c", "d"}, 3) == pytest.approx(1 / 3)
    assert metrics.mrr(found, {"c", "b"}) == 0.5
    assert metrics.mrr(found, {"z"}) == metrics.recall_at_k(found, (), 3) == 0


def test_ndcg_counts_repeated_documents_once() -> None:
    gain = 1 / math.log2(3) + 1 / math.log2(5)
    best = 1 + 1 / math.log2(3)
    assert metrics.ndcg_at_k(["a", "b", "b", "c"], {"b", "c"}, 4) == pytest.approx(gain / best)
    assert metrics.ndcg_at_k(["b", "c"], {"b", "c"}, 10) == 1
    assert metrics.ndcg_at_k(["a", "b"], {"b"}, 1) == metrics.ndcg_at_k(["a"], (), 5) == 0
    assert metrics.ndcg_at_k(["b", "b", "b"], {"b", "c", "d"}, 1) == 1


def test_measure_evidence_of_shown_passages() -> None:
    found = metrics.measure_evidence(shown(hit(*DOGS), hit(57, 75)), "fares.md", RAW, [DOGS, FARE])
    assert (found.gold, found.gold_shown, found.shown) == (17 + 29, 17, 17 + 16)
    assert found.recall == pytest.approx(17 / 46)
    assert found.precision == pytest.approx(17 / 33)
    assert found.iou == pytest.approx(17 / (46 + 33 - 17))
    assert found.full == 0
    assert metrics.measure_evidence(shown(hit(*DOGS), hit(*FARE)), "fares.md", RAW, [(0, 56)]).full == 1
    assert metrics.measure_evidence(shown(hit(0, 75)), "fares.md", RAW, [DOGS, FARE]).full == 1


def test_evidence_includes_overlap_shown_earlier() -> None:
    overlapping = shown(hit(0, 56), hit(22, 75))
    assert [passage.text for passage in overlapping] == [RAW[:56], RAW[57:75]]
    assert metrics.measure_evidence(overlapping, "fares.md", RAW, [(22, 75)]).full == 1


def test_evidence_excludes_truncated_text() -> None:
    cut = shown(hit(22, 75), room=len(str(shown(hit(*FARE))[0])) + 8)
    assert cut[0].text == RAW[22:56]
    assert metrics.measure_evidence(cut, "fares.md", RAW, [(22, 75)]).gold_shown == 29


def test_evidence_of_other_documents_is_zero() -> None:
    assert metrics.measure_evidence(shown(hit(*DOGS, doc="other.md")), "fares.md", RAW, [DOGS]).gold_shown == 0
    nothing = metrics.measure_evidence([], "fares.md", RAW, [])
    assert (nothing.recall, nothing.full, nothing.precision, nothing.iou) == (0, 0, 0, 0)
