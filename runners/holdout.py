"""Validation rows set apart by group: what nearly repeats, or comes from one document, stays on one side.

Rows that share their source or their words with training rows are known already, so a loss on them says nothing of
what the model does with new ones, and would never rise to stop a run that learns by heart.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from rag.durable import sha256_text
from rag.errors import BadInput
from runners import near
from runners.example import Example, normalised

Rows = tuple[Example, ...]


def hold_out(rows: Sequence[Example], share: float, seed: int) -> tuple[Rows, Rows]:
    """Divide rows into training and validation, of which ``share`` goes to validation, both in order.

    Whole groups (:func:`groups`) are drawn by the seed; the order of the rows does not matter. At least one
    group is held out when ``share`` is above 0. Raises BadInput when all rows hang together.
    """
    if not 0 <= share < 1:
        raise BadInput(f"the share of rows for validation must be from 0 to below 1, found {share}")
    if share == 0 or not rows:
        return tuple(rows), ()
    texts = [_said(row) for row in rows]
    found = groups(rows)
    if len(found) == 1:
        raise BadInput(
            f"none of the {len(rows)} rows can be held out: they all hang together, by source document or near repeat",
            "give validation rows of your own, or train without",
        )
    keys = {place: sha256_text(f"{seed}\0{texts[place]}") for place in range(len(rows))}
    drawn = sorted(found, key=lambda group: min(keys[place] for place in group))
    wanted, taken = share * len(rows), set[int]()
    for group in drawn:
        # The group that crosses the line is taken when more of it stands before the line than after.
        if len(taken) + len(group) / 2 <= wanted:
            taken.update(group)
    if not taken:
        taken.update(sorted(drawn, key=len)[0])
    train = tuple(row for place, row in enumerate(rows) if place not in taken)
    return train, tuple(row for place, row in enumerate(rows) if place in taken)


def groups(rows: Sequence[Example]) -> list[list[int]]:
    """Return the places of rows that belong together, directly or through others.

    Rows belong together when they name the same ``meta.doc_id``, ask the same question (unless over half of
    all rows do: then it is the task, not the question), or nearly repeat each other (:mod:`runners.near`).
    """
    texts = [_said(row) for row in rows]
    first = dict[str, int]()
    same = [first.setdefault(text, place) for place, text in enumerate(texts)]
    once = sorted(set(same))
    links = [*enumerate(same)]
    for own, others in enumerate(near.matches([texts[p] for p in once], [texts[p] for p in once])):
        links += [(once[own], once[other]) for other in others]
    links += _sharing(str(row.meta.get("doc_id") or "") for row in rows)
    asked = [normalised(row.question) for row in rows]
    usual = {question for question, n in Counter(asked).items() if n > len(rows) / 2}
    links += _sharing("" if question in usual else question for question in asked)
    return _joined(len(rows), links)


def _sharing(keys: Iterable[str]) -> list[tuple[int, int]]:
    """Link each place to the first with the same key; "" is no key."""
    first = dict[str, int]()
    return [(place, first.setdefault(key, place)) for place, key in enumerate(keys) if key]


def _joined(size: int, links: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Return the connected places, each group and its members in order."""
    head = list(range(size))

    def top(place: int) -> int:
        while head[place] != place:
            head[place] = place = head[head[place]]
        return place

    for a, b in links:
        low, high = sorted((top(a), top(b)))
        head[high] = low
    members: dict[int, list[int]] = defaultdict(list)
    for place in range(size):
        members[top(place)].append(place)
    return list(members.values())


def _said(row: Example) -> str:
    return normalised("\n".join(m["content"] for m in row.messages if m["role"] != "system"))
