"""Arms that know nothing lose to an honest arm, in simulated trials that are scored as real ones are."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import pytest

from rag.types import Citation
from runners.data.questions import Question
from runners.plan.schema import Plan, parse_plan
from runners.trial.trial import ArmScores, score_trial

PLACES = [
    "Copper Ladle",
    "Lantern Quay",
    "Gannet Mole",
    "Ropewalk Museum",
    "Heron Pier",
    "Tolla Bren",
    "Bollard Inn",
    "Fern Hill",
]
PEOPLE = [
    "Gunnar Sprake",
    "Alma Teague",
    "Rolf Kell",
    "Ida Brandt",
    "Olav Moe",
    "Tilda Roe",
    "Petra Lindner",
    "Hugo Vane",
]
THINGS = ["bicycle", "locker", "kayak", "tent", "parking space", "life jacket", "cabin", "guided tour"]
THINGS_DE = ["Fahrrad", "Schließfach", "Kajak", "Zelt", "Parkplatz", "Ruderboot", "Zimmer", "Liegestuhl"]
LABELS = ["refund", "lost_card", "card_arrival", "top_up_limit", "exchange_rate"]
CLOSING = {"en": "Shall I pass your question on to the desk?", "de": "Darf ich Ihnen sonst noch helfen?"}
OPENING = {"en": "Good day from the harbour desk!", "de": "Guten Tag vom Hafenamt!"}
REFUSAL = {"en": "I could not find that in our documents.", "de": "Das steht nicht in unseren Unterlagen."}
OTHER = {
    "en": [
        "The café sells soup and bread until the evening.",
        "The old rope works burnt down and were built up again by the town.",
        "Groups need a guide, whom the tourist office sends.",
        "A harbour train stops at the gate all day in summer.",
        "The model ships are shown in the gallery on the upper floor.",
        "Lost umbrellas are kept in the cellar for a season.",
    ],
    "de": [
        "Das Café verkauft Suppe und Brot bis zum Abend.",
        "Die alte Seilerei brannte ab und wurde von der Stadt neu gebaut.",
        "Gruppen brauchen eine Führung, die das Fremdenbüro schickt.",
        "Eine Hafenbahn hält im Sommer den ganzen Tag am Tor.",
        "Die Schiffsmodelle stehen in der Galerie im oberen Stockwerk.",
        "Vergessene Schirme liegen eine Saison lang im Keller.",
    ],
}
HONEST, *PLANTED = ("hybrid", "prompting", "few-shot", "rag", "lora", "naive-stack", "qlora", "full")
ARMS = dict(
    zip(
        PLANTED,
        ("parrot", "never-refuse", "always-refuse", "keywords", "passage", "echo", "number-dump"),
        strict=True,
    )
)


@dataclass(frozen=True)
class Asked:
    """A question with its gold, a right answer, a wrong one, and a passage that holds the fact."""

    question: Question
    right: str
    wrong: str
    passage: str


def fact(rng: random.Random, number: int, language: str) -> Asked:
    """A question about a price, a time, a person or a yes or no."""
    place = rng.choice(PLACES)
    person, stranger = rng.sample(PEOPLE, 2)
    at = rng.randrange(8)
    price, dearer = rng.sample([f"{euros}.{cents}" for euros in range(2, 60) for cents in (20, 50, 80)], 2)
    hour, later = rng.sample(range(6, 22), 2)
    allowed = rng.random() < 0.5
    if language == "de":
        thing, price, dearer = THINGS_DE[at], price.replace(".", ","), dearer.replace(".", ",")
        kinds = [
            (
                f"Was kostet {thing} Nummer {number} bei {place}?",
                f"{price} Euro",
                "Das kostet {} am Tag.",
                f"{dearer} Euro",
            ),
            (
                f"Wann öffnet das Tor {number} von {place}?",
                f"{hour}:30 Uhr",
                "Es öffnet um {}.",
                f"{later}:45 Uhr",
            ),
            (f"Wer leitet das Haus {number} von {place}?", person, "Die Leitung hat {}.", stranger),
        ]
    else:
        thing = THINGS[at]
        yes, no = f"Yes, a {thing} is allowed there.", f"No, a {thing} is not allowed there."
        kinds = [
            (
                f"What does {thing} {number} cost at {place}?",
                f"{price} euros",
                "It costs {} for a day.",
                f"{dearer} euros",
            ),
            (
                f"When does gate {number} of {place} open?",
                f"{hour:02}:30",
                "The gate opens at {}.",
                f"{later:02}:45",
            ),
            (f"Who looks after house {number} of {place}?", person, "It is looked after by {}.", stranger),
            (
                f"Is a {thing} allowed in room {number} of {place}?",
                "yes" if allowed else "no",
                "{}",
                no if allowed else yes,
            ),
        ]
    asked, gold, sentence, wrong_value = rng.choice(kinds)
    right = (yes if allowed else no) if gold in ("yes", "no") else sentence.format(gold)
    wrong = sentence.format(wrong_value)
    reference = f"{right} {CLOSING[language]}"
    around = rng.sample(OTHER[language], 5)
    position = rng.randrange(6)
    passage = " ".join([*around[:position], right, *around[position:]])
    kept = rng.choice(["answers", "reference", "both"])
    question = Question(
        f"q{number}",
        asked,
        (gold,) if kept != "reference" else (),
        reference=reference if kept != "answers" else None,
        references=(reference,) if kept != "answers" else (),
    )
    return Asked(question, right, wrong, passage)


def short(rng: random.Random, number: int, language: str) -> Asked:
    """A question whose gold is a short answer, answered in few words."""
    asked = fact(rng, number, language)
    while not asked.question.answers or asked.question.answers[0] in ("yes", "no"):
        asked = fact(rng, number, language)
    gold = asked.question.answers[0]
    question = Question(asked.question.id, asked.question.question, (gold,))
    return Asked(question, gold, asked.wrong.rstrip("."), asked.passage)


def labelled(rng: random.Random, number: int, _: str) -> Asked:
    """A message to label; the passage is the list of labels in the prompt."""
    right, wrong = rng.sample(LABELS, 2)
    question = Question(
        f"q{number}", f"Message {number}: {right.replace('_', ' ')}?", reference=right, references=(right,)
    )
    return Asked(question, right, wrong, f"The labels are {', '.join(LABELS)}.")


def record(rng: random.Random, number: int, _: str) -> Asked:
    """A request to write as JSON."""
    place, other = rng.sample(PLACES, 2)
    seats = rng.randrange(2, 9)
    right = json.dumps({"intent": "book", "place": place, "seats": seats})
    wrong = json.dumps({"intent": "book", "place": other, "seats": seats + 1})
    question = Question(
        f"q{number}", f"Book table {number}, {seats} seats at {place}", reference=right, references=(right,)
    )
    return Asked(question, right, wrong, f"Intents: book, cancel. Places: {', '.join(PLACES)}.")


KINDS: tuple[Callable[[random.Random, int, str], Asked], ...] = (fact, short, labelled, record)


def make_plan(kind: Callable[..., Asked], styled: bool, language: str, citing: bool) -> Plan:
    """A plan with the weights of such a task; a style check that the closing line meets, where one is wanted."""
    checks: list[dict[str, Any]] = []
    if kind is labelled:
        checks = [{"kind": "labels", "value": LABELS}]
    elif kind is record:
        checks = [{"kind": "json_schema", "value": {"type": "object"}}]
    elif styled:
        checks = [{"kind": "regex", "value": r"\?$", "text": "closes with a question"}]
    return parse_plan(
        {
            "name": "p",
            "choice": "rag",
            "model": {"name": "m"},
            "data": {"documents": "d", "questions": "q"},
            "steps": [
                {"kind": "index"},
                *(
                    {"kind": "evaluate", "arm": arm, "retrieval": arm in ("rag", "hybrid")}
                    for arm in (HONEST, *PLANTED)
                ),
            ],
            "weights": {"style": 1, "fact_recall": 1, "agreement": 0.5, "token_f1": 0.5, "refusal": 1}
            | ({"citation": 0.5} if citing else {}),
            "checks": checks,
            "prompts": {"refusals": [REFUSAL[language]]},
        }
    )


def planted_answer(
    kind: str, asked: Asked, everything: list[Asked], language: str, rng: random.Random
) -> str:
    """The answer of an arm that knows nothing; those that look at passages hold the gold's words."""
    closing = CLOSING[language]
    if kind == "parrot":
        return f"{OPENING[language]} {closing}"
    if kind == "never-refuse":
        return asked.wrong if asked.wrong.startswith(("{", *LABELS)) else f"{asked.wrong} {closing}"
    if kind == "always-refuse":
        return REFUSAL[language]
    if kind == "keywords":
        words = [
            word.strip(".,?") for item in (asked, *rng.sample(everything, 3)) for word in item.passage.split()
        ]
        chosen = rng.sample(words, min(len(words), 20)) + (list(asked.question.answers) or [asked.right])
        rng.shuffle(chosen)
        return f"{', '.join(chosen)} {closing}"
    if kind == "passage":
        return asked.passage
    if kind == "echo":
        return f"{asked.question.question} {closing}"
    numbers = [str(rng.randrange(2, 99)) for _ in range(8)]
    return f"{', '.join(numbers)}, {asked.right}"


def simulate(seed: int) -> dict[str, ArmScores]:
    """Score one simulated trial: the honest arm and the planted ones on the same questions.

    The honest arm is right on the smallest count that is three tenths of the answerable questions, or on more. In half of
    the trials it never refuses, never keeps the style and never cites.
    """
    rng = random.Random(seed)
    kind = rng.choice(KINDS)
    language = rng.choice(["en", "de"]) if kind in (fact, short) else "en"
    count = rng.randint(30, 80)
    unanswerable = int(rng.uniform(0, 0.4) * count)
    worst = rng.random() < 0.5
    asked = [kind(rng, number, language) for number in range(count)]
    without = set(rng.sample(range(count), unanswerable))
    questions = [
        Question(item.question.id, item.question.question, answerable=False)
        if n in without
        else item.question
        for n, item in enumerate(asked)
    ]
    answerable = [n for n in range(count) if n not in without]
    share = 0.3 if worst else rng.uniform(0.3, 0.9)
    right = set(rng.sample(answerable, math.ceil(share * len(answerable))))
    formal = kind in (labelled, record)
    rows = []
    for n, item in enumerate(asked):
        answers = {arm: planted_answer(name, item, asked, language, rng) for arm, name in ARMS.items()}
        style = "" if worst or formal else f" {CLOSING[language]}"
        honest = item.right if n in right else item.wrong
        answers[HONEST] = REFUSAL[language] if n in without and not worst else f"{honest}{style}"
        rows += [row(arm, item.question.id, text, cited=arm == "rag") for arm, text in answers.items()]
    plan = make_plan(kind, rng.random() < 0.7, language, rng.random() < 0.5)
    return {arm.arm: arm for arm in score_trial(plan, questions, rows, lambda question: "")}


def row(arm: str, id: str, text: str, cited: bool) -> dict[str, Any]:
    """A row of the journal; the passage-copying arm cites what it copies."""
    return {
        "arm": arm,
        "seed": 0,
        "id": id,
        "answer": text,
        "citations": [
            asdict(
                Citation(
                    n=1,
                    doc="d",
                    title="t",
                    page=None,
                    line_start=1,
                    line_end=1,
                    char_start=0,
                    char_end=len(text),
                    quote=text,
                )
            )
        ]
        if cited
        else [],
        "seconds": 1.0,
        "prompt_tokens": 10,
        "completion_tokens": 5,
    }


@pytest.mark.parametrize("seeds", [range(25), pytest.param(range(25, 500), marks=pytest.mark.slow)])
def test_planted_arms_lose_to_an_honest_arm_in_every_trial(seeds: range) -> None:
    lost = []
    for seed in seeds:
        arms = simulate(seed)
        honest = arms[HONEST].mean_score
        lost += [
            (seed, name, round(arms[arm].mean_score, 3), round(honest, 3))
            for arm, name in ARMS.items()
            if arms[arm].mean_score >= honest
        ]
    assert lost == []


def test_bounds_of_the_combined_score_hold() -> None:
    """The worst honest arm has at least .20, an arm that only refuses at most .15."""
    for seed in range(20):
        arms = simulate(seed)
        refusing = next(arm for arm, name in ARMS.items() if name == "always-refuse")
        assert arms[refusing].mean_score <= 0.15 + 1e-9
        assert arms[HONEST].mean_score >= 0.85 * 0.3 * 0.8 - 1e-9
