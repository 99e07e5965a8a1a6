"""The gold passages of rows: from their own document, spans and quotations, else by support."""

from __future__ import annotations

from typing import Any

import pytest

from rag.types import Chunk, Hit
from runners.arms.gold_passages import GoldPassages, RowGold
from runners.data.examples import Example

TEXTS = {
    "ferry.md": ["The ferry sails at nine from the east pier.", "Cats travel free in a closed basket."],
    "museum.md": ["The museum is shut on Mondays.", "Guided tours begin at noon.", "Coats stay in the hall."],
}


def chunks() -> list[Chunk]:
    made: list[Chunk] = []
    for doc, texts in TEXTS.items():
        start = 0
        for ordinal, text in enumerate(texts):
            made.append(Chunk(len(made), doc, doc[:-3].title(), ordinal, text, start, start + len(text)))
            start += len(text) + 1
    return made


def gold(reply: str, hits: tuple[Hit, ...] = (), **meta: Any) -> RowGold:
    turns = ({"role": "user", "content": "Tell me?"}, {"role": "assistant", "content": reply})
    return GoldPassages(chunks()).gold_of(Example(turns, meta, 1), hits)


@pytest.mark.parametrize(
    ("meta", "by", "texts"),
    [
        ({}, "", []),
        ({"doc_id": "museum.md"}, "document", TEXTS["museum.md"][:2]),
        ({"doc_ids": ["nowhere", "ferry.md"]}, "document", TEXTS["ferry.md"]),
        ({"document": {"id": "ferry.md"}}, "document", TEXTS["ferry.md"]),
        ({"source": "a survey"}, "", []),
        ({"source": "ferry.md"}, "document", TEXTS["ferry.md"]),
        ({"doc_id": "museum.md", "spans": [{"start": 31, "end": 58}]}, "spans", [TEXTS["museum.md"][1]]),
        (
            {"doc_id": "museum.md", "spans": [[3, 20], [60, 70]]},
            "spans",
            [TEXTS["museum.md"][n] for n in (0, 2)],
        ),
        ({"doc_id": "museum.md", "start": 60, "end": 70}, "spans", [TEXTS["museum.md"][2]]),
        ({"spans": [{"doc_id": "ferry.md", "start": 44, "end": 80}]}, "spans", [TEXTS["ferry.md"][1]]),
        (
            {"doc_id": "museum.md", "spans": [{"start": 5000, "end": 5010}]},
            "document",
            TEXTS["museum.md"][:2],
        ),
        ({"doc_id": "museum.md", "spans": [{"label": "PER"}]}, "document", TEXTS["museum.md"][:2]),
        ({"spans": [{"quote": "cats travel free"}]}, "quote", [TEXTS["ferry.md"][1]]),
        ({"context": f"Rules. {TEXTS['museum.md'][2]} Umbrellas too."}, "quote", [TEXTS["museum.md"][2]]),
        ({"doc_id": "museum.md", "fact": "Guided tours begin at noon."}, "fact", [TEXTS["museum.md"][1]]),
    ],
)
def test_row_names_its_passages(meta: dict[str, Any], by: str, texts: list[str]) -> None:
    """The reply, in another language than the documents, is supported by none of their words."""
    found = gold("Sí, está permitido.", **meta)
    assert (found.by, [chunk.text for chunk in found.passages]) == (by, texts)


def test_support_goes_before_the_mere_name_of_a_document() -> None:
    found = gold("Coats stay in the hall.", doc_id="museum.md")
    assert (found.by, [chunk.text for chunk in found.passages]) == ("support", ["Coats stay in the hall."])


def test_passages_of_a_named_document_are_in_the_order_of_the_search() -> None:
    hit = Hit(chunks()[4], 1.0, 1.0, 1.0)
    assert gold("Sí.", (hit,), doc_id="museum.md").passages[0] == hit.chunk


def test_ids_that_the_index_lacks_are_reported() -> None:
    found = gold("The museum is shut on Mondays.", doc_ids=["old.md", 7])
    assert (found.by, found.unknown) == ("support", ("old.md", "7"))
    assert gold("Sí.", source="a survey").unknown == ()


def test_named_document_alone_is_no_support() -> None:
    """The probe of what the base knows needs a passage that supports the gold."""
    turns = ({"role": "user", "content": "Tell me?"}, {"role": "assistant", "content": "Sí."})
    assert GoldPassages(chunks()).find(Example(turns, {"doc_id": "museum.md"}, 1)) is None
