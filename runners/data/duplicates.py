"""Find near duplicates among texts exactly, by the Jaccard similarity of their word 3-grams (shingles).

:func:`near_duplicate_groups` groups the texts of one list; :func:`near_duplicate_matches` compares two lists. The
threshold 0.8 is the usual one of corpus deduplication (MinHash estimates the same similarity): in a text of 30 words one
changed word leaves 0.81, in one of 20 words 0.71, so short texts are duplicates only when hardly a word differs. Texts
under three words are duplicates when they are equal. Shingles that most texts share (the instructions around each input,
a template) are left out, so rows of one template with different facts stay different.

Texts that share a passage (several questions on one paragraph) are similar as a whole though they ask different things.
Where two texts have a passage of at least :data:`MIN_PASSAGE_WORDS` words in common, what they ask decides: the
segments that differ and hold a question, begin or end a text, or belong to the reply must be alike too.

The search is prefix filtering (Bayardo et al., "Scaling Up All Pairs Similarity Search", 2007; Xiao et al., "Efficient
Similarity Joins for Near Duplicate Detection", 2008): with every set sorted by rarity, two sets of at least that
similarity share one of their first few members, so only texts that do are compared. Nothing is estimated, and there is no
seed and no dependency.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from runners.data.examples import normalise_text

MIN_SIMILARITY = 0.8
"""Jaccard similarity from which two texts are near duplicates; ``_similar`` and ``_leaders`` use it as a fraction, 4/5."""
MIN_NGRAMS = 10
"""Number of different texts from which on shingles that over half of them have are left out, as part of a template."""


MIN_PASSAGE_WORDS = 20
"""Words in equal segments that neither ask nor reply, from which on two texts share a passage.

They must also be at least half of the shorter text.
"""
MIN_ALIKE_WITH_REPLY = 0.5
"""Share of words in which two questions on one passage must agree to be near duplicates, where their replies are equal."""
_SEGMENT_END = re.compile(
    # a line, a sentence, a string of JSON, or a label ("Question:") begins a new segment
    r"\n+|(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])|\"\s*[,:}\]]+\s*|\s+(?=[^\W\d]\w*:\s)|\\n"
)


def near_duplicate_groups(
    texts: Sequence[str], kinds: Sequence[str] | None = None, replies: Sequence[str] | None = None
) -> list[list[int]]:
    """Group near duplicates: each group has one text, its leader, that all others in it nearly repeat.

    A text belongs to the first leader (shortest texts first) that it is similar to; a text that is similar to no leader
    becomes one. A chain of small changes is therefore not one group.

    Args:
        texts: the texts.
        kinds: kind of each text; only texts of the same kind are compared. None: all of one kind.
        replies: the reply that each text ends with, which is always part of what it says; None for none.

    Returns:
        Groups of indices into ``texts``; groups and their members are in ascending order.
    """
    indices_by_kind: dict[str, list[int]] = defaultdict(list)
    for index in range(len(texts)):
        indices_by_kind["" if kinds is None else kinds[index]].append(index)
    members: dict[int, list[int]] = defaultdict(list)
    for indices in indices_by_kind.values():
        parts = _Parts([texts[index] for index in indices], replies and [replies[index] for index in indices])
        leaders = _leaders(_by_rarity(_shingles([texts[index] for index in indices])), parts)
        for own, leader in enumerate(leaders):
            members[indices[leader]].append(indices[own])
    return sorted(members.values())


def count_distinct_texts(
    texts: Sequence[str], kinds: Sequence[str] | None = None, replies: Sequence[str] | None = None
) -> int:
    """Count the groups of near duplicates: texts that nearly repeat each other count once."""
    return len(near_duplicate_groups(texts, kinds, replies))


def near_duplicate_matches(texts: Sequence[str], among: Sequence[str]) -> list[list[int]]:
    """Return, for each text, the ascending indices of all texts in ``among`` that it nearly repeats.

    Unlike :func:`near_duplicate_groups` this compares every pair: a text may repeat one that is in another group.
    """
    ranked_sets = _by_rarity(_shingles([*among, *texts]))
    sets = [frozenset(ranked) for ranked in ranked_sets]
    parts = _Parts([*among, *texts], None)
    # Prefix filter: |a & b| / |a | b| >= 4/5 implies |a & b| >= 4/5 |a|, so at most a fifth of a's members are missing
    # from b: one of the first |a| // 5 + 1 members of a is in b. The same holds for b, and as both are sorted in one
    # order, the first member they share is in both prefixes.
    prefixes = [ranked[: len(ranked) // 5 + 1] for ranked in ranked_sets]
    by_shingle: dict[int, list[int]] = defaultdict(list)
    for index, prefix in enumerate(prefixes[: len(among)]):
        for shingle in prefix:
            by_shingle[shingle].append(index)
    matches = []
    for index in range(len(among), len(sets)):
        candidates = {other for shingle in prefixes[index] for other in by_shingle[shingle]}
        similar = (other for other in candidates if _similar(sets[other], sets[index]))
        matches.append(sorted(other for other in similar if parts.ask_alike(other, index)))
    return matches


class _Parts:
    """The segments of texts, for pairs that are similar as a whole: whether they also ask, and reply, alike."""

    def __init__(self, texts: Sequence[str], replies: Sequence[str] | None) -> None:
        self._texts = texts
        self._replies = replies
        self._segments: dict[int, dict[str, str]] = {}
        """By text: the words of each segment, and its role: passage, edge (first or last), question or reply."""

    def ask_alike(self, first: int, second: int) -> bool:
        """Whether two similar texts share no passage, or differ in nothing that asks or replies."""
        if not all(re.search(r"[\n.!?…。！？:\"]", self._texts[index]) for index in (first, second)):
            return True  # a text of one segment shares no passage with another
        a, b = self._of(first), self._of(second)
        shared = _words_in(part for part, role in a.items() if role in ("passage", "edge") and part in b)
        if shared < MIN_PASSAGE_WORDS or 2 * shared < min(_words_in(a), _words_in(b)):
            return True
        own_a = [part for part in a if part not in b]
        own_b = [part for part in b if part not in a]
        if not own_a or not own_b:
            return True
        asked_a = {word for part in own_a if a[part] != "passage" for word in part.split()}
        asked_b = {word for part in own_b if b[part] != "passage" for word in part.split()}
        # The same reply about the same passage: a question in other words is no other question.
        same_reply = bool(self._reply(first)) and self._reply(first) == self._reply(second)
        wanted = MIN_ALIKE_WITH_REPLY if same_reply else MIN_SIMILARITY
        return len(asked_a & asked_b) >= wanted * len(asked_a | asked_b)

    def _reply(self, index: int) -> str:
        return normalise_text(self._replies[index]) if self._replies else ""

    def _of(self, index: int) -> dict[str, str]:
        if index not in self._segments:
            reply = self._replies[index].strip() if self._replies else ""
            prompt = [
                part for part in _SEGMENT_END.split(self._texts[index].strip().removesuffix(reply)) if part
            ]
            prompt = [part for part in prompt if normalise_text(part)]
            roles = {
                normalise_text(part): "question"
                if "?" in part
                else "edge"
                if number in (0, len(prompt) - 1)
                else "passage"
                for number, part in enumerate(prompt)
            }
            replied = [normalise_text(part) for part in _SEGMENT_END.split(reply) if part]
            self._segments[index] = roles | {part: "reply" for part in replied if part}
        return self._segments[index]


def _words_in(segments: Iterable[str]) -> int:
    """Return the number of words of normalised segments."""
    return sum(segment.count(" ") + 1 for segment in segments)


def _shingles(texts: Sequence[str]) -> list[frozenset[int]]:
    """Return each text's word 3-grams as numbers."""
    ids: dict[str, int] = {}
    shingles = []
    for text in texts:
        words = [ids.setdefault(word, len(ids) + 1) for word in normalise_text(text).split()]
        # Texts under three words are padded with 0, which is no word's number.
        words += [0] * (3 - len(words))
        # Three word numbers of 32 bits side by side: unlike hashes, they never collide.
        shingles.append(
            frozenset(a << 64 | b << 32 | c for a, b, c in zip(words, words[1:], words[2:], strict=False))
        )
    return shingles


def _by_rarity(sets: Sequence[frozenset[int]]) -> list[list[int]]:
    """Return each set as the sorted ranks of its shingles, rank 0 being the rarest; frequent shingles are left out.

    A shingle that more than half of the different texts have is part of a template and left out, from
    :data:`MIN_NGRAMS` different texts on.
    """
    different = set(sets)
    frequency = Counter(shingle for shingles in different for shingle in shingles)
    limit = len(different) / 2 if len(different) >= MIN_NGRAMS else len(different)
    ranked = sorted(
        (shingle for shingle in frequency if frequency[shingle] <= limit), key=lambda s: frequency[s]
    )
    rank = {shingle: number for number, shingle in enumerate(ranked)}
    return [sorted(rank[shingle] for shingle in shingles if shingle in rank) for shingles in sets]


def _leaders(sets: Sequence[list[int]], parts: _Parts) -> list[int]:
    """Return the index of each set's leader: the first similar leader, or the set itself when there is none.

    Sets are visited from the shortest to the longest, so that every candidate is no longer than the set it is compared
    with.
    """
    leader = list(range(len(sets)))
    leader_of_equal: dict[frozenset[int], int] = {}
    leader_sets: dict[int, frozenset[int]] = {}
    by_shingle: dict[int, list[int]] = defaultdict(list)
    for index in sorted(leader, key=lambda i: (len(sets[i]), i)):
        ranked = sets[index]
        members = frozenset(ranked)
        if members in leader_of_equal:
            leader[index] = leader_of_equal[members]
            continue
        # At least 4/5 of this set's members must be shared, so one of the first fifth, or the one after it, is.
        prefix = len(ranked) // 5 + 1
        candidates = {other for shingle in ranked[:prefix] for other in by_shingle[shingle]}
        similar = [
            other
            for other in candidates
            if _similar(leader_sets[other], members) and parts.ask_alike(other, index)
        ]
        leader[index] = leader_of_equal[members] = min(
            similar, key=lambda i: (len(sets[i]), i), default=index
        )
        if not similar:
            leader_sets[index] = members
            # Sets visited later are at least as long: with |b| >= |a|, 9 |a & b| >= 4 (|a| + |b|) >= 8 |a|, so 8/9 of
            # this set's members must be shared, and a prefix of a ninth is enough.
            for shingle in ranked[: len(ranked) // 9 + 1]:
                by_shingle[shingle].append(index)
    return leader


def _similar(a: frozenset[int], b: frozenset[int]) -> bool:
    """Whether |a & b| / |a | b| >= 4/5.

    With |a | b| = |a| + |b| - |a & b| this is 9 |a & b| >= 4 (|a| + |b|), in whole numbers.
    """
    return 9 * len(a & b) >= 4 * (len(a) + len(b))
