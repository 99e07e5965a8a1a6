"""Texts that nearly repeat each other, found exactly: Jaccard similarity of their word 3-grams.

0.8 is the usual threshold of corpus deduplication (MinHash estimates the same figure): in a text of 30 words one
changed word leaves 0.81, in one of 20 words 0.71, so short texts repeat only when hardly a word differs. Texts
under three words repeat when they are equal. What most texts share (the instructions around each input, a template)
says nothing about repeats and is left out, so rows of one template with different facts stay different.

The search is prefix filtering (Bayardo et al., "Scaling Up All Pairs Similarity Search", 2007; Xiao et al.,
"Efficient Similarity Joins for Near Duplicate Detection", 2008): with every set sorted by rarity, two sets as
similar as that share one of their first few members, so only texts that do are compared. There is no estimate, no
seed, and nothing to install.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from runners.data.examples import normalise_text

MIN_SIMILARITY = 0.8
"""Jaccard similarity from which a text repeats another; ``_alike`` and ``_leaders`` hold it as whole numbers."""
MIN_NGRAMS = 10
"""From this many different texts on, shingles that over half of them hold are the frame, which is left out."""


def near_duplicate_groups(texts: Sequence[str], kinds: Sequence[str] | None = None) -> list[list[int]]:
    """Return the places of the texts, grouped: each group has one text that all others in it nearly repeat.

    A text belongs to the first text (the shortest come first) that it resembles and that repeats none itself; a
    chain of small changes is therefore not one group. With ``kinds``, only texts of one kind are compared. Groups
    and their members come in the order of ``texts``.
    """
    together: dict[str, list[int]] = defaultdict(list)
    for place in range(len(texts)):
        together["" if kinds is None else kinds[place]].append(place)
    members: dict[int, list[int]] = defaultdict(list)
    for places in together.values():
        for own, leader in enumerate(_leaders(_by_rarity(_shingles([texts[place] for place in places])))):
            members[places[leader]].append(places[own])
    return sorted(members.values())


def count_distinct_texts(texts: Sequence[str], kinds: Sequence[str] | None = None) -> int:
    """Count the texts, those that nearly repeat each other once."""
    return len(near_duplicate_groups(texts, kinds))


def near_duplicate_matches(texts: Sequence[str], among: Sequence[str]) -> list[list[int]]:
    """Return for each text the places in ``among`` of all texts that it nearly repeats.

    Unlike :func:`groups` this compares every pair: a text may repeat one that is in another group.
    """
    sets = _by_rarity(_shingles([*among, *texts]))
    whole = [frozenset(ranked) for ranked in sets]
    # Two sets as similar as that share one of the first fifth of either's members, or the one after it.
    first = [ranked[: len(ranked) // 5 + 1] for ranked in sets]
    holding: dict[int, list[int]] = defaultdict(list)
    for place, ranked in enumerate(first[: len(among)]):
        for shingle in ranked:
            holding[shingle].append(place)
    found = []
    for place in range(len(among), len(sets)):
        near = {other for shingle in first[place] for other in holding[shingle]}
        found.append(sorted(other for other in near if _alike(whole[other], whole[place])))
    return found


def _shingles(texts: Sequence[str]) -> list[frozenset[int]]:
    """Return each text's 3-grams as numbers: three word numbers side by side, which are small and never collide."""
    ids: dict[str, int] = {}
    found = []
    for text in texts:
        words = [ids.setdefault(word, len(ids) + 1) for word in normalise_text(text).split()]
        words += [0] * (3 - len(words))
        found.append(
            frozenset(a << 64 | b << 32 | c for a, b, c in zip(words, words[1:], words[2:], strict=False))
        )
    return found


def _by_rarity(sets: Sequence[frozenset[int]]) -> list[list[int]]:
    """Number the shingles from the rarest, and return each set as its numbers in that order, without the frame."""
    different = set(sets)
    seen = Counter(shingle for found in different for shingle in found)
    most = len(different) / 2 if len(different) >= MIN_NGRAMS else len(different)
    kept = sorted((shingle for shingle in seen if seen[shingle] <= most), key=lambda s: seen[s])
    number = {shingle: at for at, shingle in enumerate(kept)}
    return [sorted(number[shingle] for shingle in found if shingle in number) for found in sets]


def _leaders(sets: Sequence[list[int]]) -> list[int]:
    """Return for each set the place of the set that stands for it, its own when it is the first of its like."""
    leader = list(range(len(sets)))
    equal: dict[frozenset[int], int] = {}
    kept: dict[int, frozenset[int]] = {}
    holding: dict[int, list[int]] = defaultdict(list)
    for place in sorted(leader, key=lambda at: (len(sets[at]), at)):
        ranked, mine = sets[place], frozenset(sets[place])
        if mine in equal:
            leader[place] = equal[mine]
            continue
        # Against a set no longer than this one, at least 4/5 of the members must be shared: all but these many.
        look = len(ranked) // 5 + 1
        near = {other for shingle in ranked[:look] for other in holding[shingle]}
        alike = [other for other in near if _alike(kept[other], mine)]
        leader[place] = equal[mine] = min(alike, key=lambda at: (len(sets[at]), at), default=place)
        if not alike:
            kept[place] = mine
            # Sets still to come are at least as long: 8/9 of this one's members must be shared then.
            for shingle in ranked[: len(ranked) // 9 + 1]:
                holding[shingle].append(place)
    return leader


def _alike(a: frozenset[int], b: frozenset[int]) -> bool:
    """Whether shared / all >= 4/5, which is the same as 9 x shared >= 4 x (both sizes)."""
    return 9 * len(a & b) >= 4 * (len(a) + len(b))
