"""Questions whose gold the documents lost."""

from __future__ import annotations

import pytest

from runners.data.questions import Question
from runners.recheck.lost_gold import find_lost_gold

OLD = {
    "a": "The Amber Pier has 20 berths. It opened in 1951. Dogs travel free on all ferries of the line.",
    "b": "The Birch Pier has\n31 berths for visitors.",
    "c": "| item | price |\n| --- | --- |\n| Brownie tray | £14.50 |\n| Scone tray | £9 |\n",
}


class Texts:
    """Documents as a mapping."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.texts = texts
        self.names = tuple(texts)
        self.all_words = tuple(f" {' '.join(text.casefold().split())} " for text in texts.values())

    def of(self, document: str) -> str | None:
        """Return a document."""
        return self.texts.get(document)


BERTHS = Question("q", "How many berths has the Amber Pier?", ("20",), doc_id="a")
DOGS = Question(
    "q", "What do dogs pay?", reference="Dogs travel free on all ferries of our line, yes.", doc_id="a"
)
NOWHERE_NAMED = Question("q", "how many berths at amber pier?", ("20",))
PRICE = Question("q", "brownie tray - price?", reference="14.50")
SPAN = Question("q", "Berths?", doc_id="b", spans=((19, 21),))


@pytest.mark.parametrize(
    ("question", "now", "lost"),
    [
        (BERTHS, OLD, ""),
        (BERTHS, {"a": OLD["a"].replace("20 berths", "25 berths")}, "no longer states"),
        # the number alone is elsewhere in the document
        (BERTHS, {"a": "The Amber Pier has 25 berths. The 20 ferries are blue."}, "no longer states"),
        (BERTHS, {"a": "Since June the Amber Pier has exactly\n20 berths."}, ""),
        (BERTHS, {"z": f"Harbours. {OLD['a']}"}, ""),
        (BERTHS, {"b": OLD["b"]}, "no longer exists"),
        (DOGS, {"a": "Dogs pay 3 euros on all ferries of the line."}, "no longer states"),
        (DOGS, {"a": "Dogs still travel free on all ferries of the line."}, ""),
        (SPAN, {"b": "The Birch Pier has 31 berths for visitors."}, ""),
        (SPAN, {"b": "The Birch Pier has 30 berths for visitors."}, "no longer states"),
        (Question("q", "Who?", ("nobody says",), doc_id="a"), {}, ""),
        (Question("q", "Who?", ("20",)), {}, ""),
        (NOWHERE_NAMED, OLD, ""),
        (NOWHERE_NAMED, {"a": OLD["a"].replace("20 berths", "25 berths")}, "the documents no longer state"),
        # elsewhere, in other words
        (NOWHERE_NAMED, {"z": "Berths of the Amber Pier: twenty."}, ""),
        (PRICE, {"c": "| item | price |\n| --- | --- |\n| Brownie tray | £14.50 |\n"}, ""),
        (PRICE, {"c": "| item | price |\n| --- | --- |\n| Brownie tray | £16.00 |\n"}, "no longer state"),
        (PRICE, {"c": "| item | price |\n| --- | --- |\n| Scone tray | £14.50 |\n"}, "no longer state"),
        (Question("q", "Who?", doc_id="a", answerable=False), {}, ""),
    ],
)
def test_lost_gold(question: Question, now: dict[str, str], lost: str) -> None:
    reasons = find_lost_gold([question], Texts(OLD), Texts(now))  # type: ignore[arg-type]
    assert (lost in reasons["q"]) if lost else not reasons
