"""The different questions of a log with how often each was asked: masked, repeats joined, greetings and empty turns
left out.

Three kinds of repeats are joined, each under the spelling that was used most: the same words but for case and
punctuation; words that are misspelled (:func:`corrected_words`: a rare word that is one edit from a far more
frequent one); and near duplicates as :mod:`runners.data.duplicates` finds them. Questions that ask the same in
other words stay apart: clusters hold those together.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rag.text.words import content_words, count_noun
from runners.arms.followup import is_followup
from runners.data.duplicates import near_duplicate_groups
from runners.data.examples import normalise_text
from runners.data.log_questions import MAX_QUESTION_CHARS
from runners.data.personal_data import mask_personal_data
from runners.data.questions import sure_language
from runners.logs.log_forms import Turn
from runners.logs.log_reader import Asked

GREETINGS = frozenset(
    """hi hello hey hiya hallo greetings thanks thank you thankyou thx ta cheers ok okay k yes no yep nope sure
    great good perfect fine nice cool bye goodbye please there all everyone team morning afternoon evening day night
    much very so many lovely test testing help ping start stop menu agent human a lot for your that s
    danke dank schön sehr vielen bitte guten gute morgen tag abend nacht moin servus grüß gott tschüss ja nein gut
    bonjour bonsoir salut merci beaucoup bien oui non au revoir hola gracias muchas buenos buenas días dias tardes noches
    sí si vale adiós grazie ciao buongiorno buonasera mille prego goedemorgen goedemiddag hoi bedankt je wel
    obrigado obrigada olá bom boa dia tarde noite sim não
    """.split()  # noqa: SIM905
)
"""Words of English, German, French, Spanish, Italian, Dutch and Portuguese: a turn of nothing else, up to
:data:`GREETING_WORDS` of them, greets, thanks or agrees and asks nothing.
"""
GREETING_WORDS = 5
_OPENING = re.compile(
    r"^(?:(?:hi|hello|hey|hiya|dear|good (?:morning|afternoon|evening|day)|all|there|team|please) )+"
)
_CLOSING = re.compile(
    r"(?: (?:please|pls|thanks|thank you|thx|cheers|ta|many|very much|so much|a lot|in advance))+$"
)
MIN_LETTERS = 4
"""Letters and digits below which a turn is left out in any language; of ideographs half as many are enough."""
MAX_HISTORY = 6
"""Most turns that are kept before a follow-up."""
MIN_WORD = 5
"""Letters from which a word may be a misspelled one."""
TIMES_RARER = 10
"""How many times rarer than the word that is meant a misspelling must be."""
MAX_DISTINCT = 50_000
"""Most different questions that are compared and embedded; of more a sample is drawn."""
SHOWN_MASKED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DistinctQuestion:
    """A question with how often it was asked."""

    text: str
    before: tuple[Turn, ...] = ()
    """The turns that a follow-up needs."""
    asked: float = 1.0
    """Times it was asked, in any of the spellings that were joined; of a sample the times that it stands for."""
    spellings: int = 1


@dataclass(slots=True)
class QuestionCounter:
    """Counts the questions of logs as they are read."""

    counts: Counter[str] = field(default_factory=Counter)
    """asked; empty, greetings, short, too_long: left out; followups: kept with turns before them."""
    masked: Counter[str] = field(default_factory=Counter)
    """Questions in which a kind of personal data was masked, by kind; a repeat counts again."""
    sample: list[str] = field(default_factory=list)
    """Some questions as they are masked, for people to look at."""
    _times: dict[tuple[str, tuple[Turn, ...]], int] = field(default_factory=dict)
    _clean: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)

    def add(self, asked: Asked) -> None:
        """Count a question, or why it is left out."""
        self.counts["asked"] += 1
        text = " ".join(asked.text.split())
        if reason := why_left_out(text):
            self.counts[reason] += 1
            return
        masked, kinds = self._masked(text)
        before = self._needed(asked.before) if asked.before and is_followup(text) else ()
        self.counts["followups"] += bool(before)
        self.masked.update(kinds)
        if kinds and masked not in self.sample and len(self.sample) < SHOWN_MASKED:
            self.sample.append(masked)
        key = (masked, before)
        self._times[key] = self._times.get(key, 0) + 1

    def _masked(self, text: str) -> tuple[str, tuple[str, ...]]:
        if text not in self._clean:
            self._clean[text] = mask_personal_data(text)
        return self._clean[text]

    def _needed(self, before: Sequence[Turn]) -> tuple[Turn, ...]:
        """Return the masked turns from the last question on that stands alone."""
        start = next(
            (
                n
                for n in reversed(range(len(before)))
                if before[n].role == "user" and not is_followup(before[n].text)
            ),
            0,
        )
        turns = [turn for turn in before[max(start, len(before) - MAX_HISTORY) :] if turn.text.strip()]
        return tuple(Turn(turn.role, self._masked(turn.text.strip())[0]) for turn in turns)

    @property
    def spellings(self) -> int:
        """How many different texts there are before repeats are joined."""
        return len(self._times)

    def languages(self) -> dict[str, int]:
        """Return how many of the different texts surely are in each language, the most frequent first."""
        names = Counter(sure_language(text) for text, _ in self._times)
        return {name: count for name, count in names.most_common() if name}

    def joined(self) -> list[DistinctQuestion]:
        """Return the different questions, the most asked first; repeats but for near duplicates are joined."""
        words = {text: plain_words(text) for text, _ in self._times}
        frequency: Counter[str] = Counter()
        for (text, _), times in self._times.items():
            for word in words[text].split():
                frequency[word] += times
        meant = corrected_words(frequency)
        groups: dict[tuple[str, ...], list[DistinctQuestion]] = {}
        for (text, before), times in self._times.items():
            corrected = " ".join(meant.get(word, word) for word in words[text].split())
            key = (corrected, *(normalise_text(turn.text) for turn in before))
            groups.setdefault(key, []).append(DistinctQuestion(text=text, before=before, asked=times))
        return sorted(map(_as_one, groups.values()), key=lambda question: (-question.asked, question.text))


def why_left_out(text: str) -> str:
    """Return why a turn is no question: empty, greetings, short, too_long or damaged; "" for one that is kept."""
    if not text:
        return "empty"
    if len(text) > MAX_QUESTION_CHARS:
        return "too_long"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "damaged"
    words = normalise_text(text).split()
    if len(words) <= GREETING_WORDS and GREETINGS.issuperset(words):
        return "greetings" if words else "short"
    letters = sum(
        2 if "\u3040" <= letter <= "\u9fff" or "\uac00" <= letter <= "\ud7af" else 1
        for word in words
        for letter in word
    )
    return "short" if letters < MIN_LETTERS else ""


def plain_words(text: str) -> str:
    """Return the words of a question in lower case, without English greetings before it and thanks after it."""
    words = normalise_text(text)
    return _CLOSING.sub("", _OPENING.sub("", words)) or words or text


def join_near_duplicates(questions: Sequence[DistinctQuestion]) -> list[DistinctQuestion]:
    """Return the questions with near duplicates as one.

    Compared are only those with the same content words, after the same turns: one day or number makes another question.
    """
    kinds = [
        "\0".join((*sorted(content_words(question.text)), "", *(turn.text for turn in question.before)))
        for question in questions
    ]
    groups = near_duplicate_groups([question.text for question in questions], kinds)
    joined = [_as_one([questions[n] for n in group]) for group in groups]
    return sorted(joined, key=lambda question: (-question.asked, question.text))


def _as_one(questions: Sequence[DistinctQuestion]) -> DistinctQuestion:
    """Return questions as one, in the words that were used most."""
    usual = max(questions, key=lambda question: question.asked)
    return replace(
        usual,
        asked=sum(question.asked for question in questions),
        spellings=sum(question.spellings for question in questions),
    )


def corrected_words(frequency: Mapping[str, int]) -> dict[str, str]:
    """Return the word that is meant for each misspelled one: one edit away, and far more frequent.

    An edit leaves a letter out, adds one, changes one or swaps two (Damerau 1964). Words are found by what is left
    when one letter is deleted, as in SymSpell. Words with digits and short words are never corrected: room 12 is
    not room 13.
    """
    usual = {word: times for word, times in frequency.items() if times >= TIMES_RARER and word.isalpha()}
    near: dict[str, list[str]] = {}
    for word in usual:
        for shorter in (word, *_deletions(word)):
            near.setdefault(shorter, []).append(word)
    meant = {}
    for word, times in frequency.items():
        if len(word) < MIN_WORD or not word.isalpha():
            continue
        candidates = {other for shorter in (word, *_deletions(word)) for other in near.get(shorter, ())}
        close = [
            other
            for other in candidates
            if usual[other] >= TIMES_RARER * times and other != word and _one_edit(word, other)
        ]
        if close:
            meant[word] = max(close, key=lambda other: (usual[other], other))
    return meant


def _deletions(word: str) -> Iterator[str]:
    return (word[:n] + word[n + 1 :] for n in range(len(word)))


def _one_edit(first: str, second: str) -> bool:
    """Whether one letter is missing, added, changed or swapped with the next; a plural is another word."""
    if abs(len(first) - len(second)) > 1:
        return False
    start = next(
        (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )
    a, b = first[start:], second[start:]
    if {a, b} == {"", "s"}:
        return False
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])


def left_out_note(counts: Mapping[str, int]) -> str:
    """Return what was left out, in words; "" where nothing was."""
    parts = [
        f"{counts[key]:,} {text}"
        for key, text in (
            ("empty", "empty"),
            ("greetings", "greetings and thanks (by a list of words of seven languages)"),
            ("short", f"under {MIN_LETTERS} letters (in any language)"),
            ("too_long", f"over {MAX_QUESTION_CHARS:,} characters"),
            ("damaged", "of broken characters"),
        )
        if counts.get(key)
    ]
    total = sum(counts.get(key, 0) for key in ("empty", "greetings", "short", "too_long", "damaged"))
    return f"left out: {count_noun(total, 'turn')}: {', '.join(parts)}" if parts else ""
