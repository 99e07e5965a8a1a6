"""Whether the documents hold the answers at all: counted from files, said first, weighed; and no false alarms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from advisor.advice import Recommendation, recommend
from advisor.questionnaire.data_facts import AnswerCount
from advisor.questionnaire.data_stats import DataStats, measure_files, token_counting
from advisor.recommendation.ranking import rank_methods
from rag.evaluation.statistics import WilsonShare
from runners.catalog.models import DEFAULT_MODEL
from runners.plan.schema import read_plan, write_plan
from runners.resources.machine import Machine

GERMAN_POOL = (
    ("preise", "Preise", "Der Eintritt für Erwachsene kostet 6 Euro. Kinder unter 12 Jahren zahlen 4 Euro."),
    ("zeiten", "Öffnungszeiten", "Freitags öffnet das Bad um 7 Uhr. Die Sauna ist dienstags geschlossen."),
    (
        "spinde",
        "Spinde",
        "Ein Spind verlangt eine Münze von 1 Euro. Verlorene Schlüssel ersetzt Nele Ahrens.",
    ),
    (
        "kurse",
        "Schwimmkurse",
        "Ein Kurs dauert zehn Wochen. Die zweite Rate der Kursgebühr ist in Woche 4 fällig.",
    ),
    ("cafe", "Café", "Das Café verkauft Suppe und Brot. Eine Schale Suppe kostet 5 Euro."),
    ("halle", "Halle", "Die Mühlenhalle fasst 120 Gäste. Das Klavier der Halle stimmt Frau Brandt im März."),
)
GERMAN_QUESTIONS = (
    ("Was kostet der Eintritt für Erwachsene?", "6 Euro"),
    ("Wann öffnet das Bad am Freitag?", "7 Uhr"),
    ("An welchem Tag ist die Sauna geschlossen?", "dienstags"),
    ("Wer ersetzt verlorene Schlüssel?", "Nele Ahrens"),
    ("In welcher Woche ist die zweite Rate der Kursgebühr fällig?", "Woche 4"),
    ("Was kostet eine Schale Suppe im Café?", "5 Euro"),
    ("Wie viele Gäste fasst die Mühlenhalle?", "120"),
    ("Wer stimmt das Klavier der Halle?", "Frau Brandt"),
)
GERMAN_MUSEUM = (
    ("uhren", "Turmuhren", "Die Turmuhr von 1712 läuft mit zwei Gewichten. Herr Voss zieht sie montags auf."),
    (
        "werkstatt",
        "Werkstatt",
        "In der Werkstatt werden Zeiger geschmiedet. Ein Zifferblatt wiegt 40 Kilogramm.",
    ),
    ("archiv", "Archiv", "Das Archiv bewahrt 900 Briefe von Uhrmachern. Es ist nur nach Anmeldung offen."),
)


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def documents(path: Path, texts: Sequence[tuple[str, str, str]]) -> Path:
    return write(path, [{"id": id, "title": title, "text": text} for id, title, text in texts])


def house(root: Path, name: str, folder: Path, far: bool = False) -> tuple[Path, Path]:
    """Write the documents and the questions of an invented house; ``far``: in words that its documents lack."""
    rows = [
        json.loads(line) for line in (root / "benchmarks/houses" / f"{name}.jsonl").open(encoding="utf-8")
    ]
    asked = [row for row in rows if "question" in row]
    for row in asked if far else ():
        row["question"] = row["wordings"][1]
        del row["doc_id"]
    for row in asked:
        del row["wordings"]
    texts = [row for row in rows if "text" in row]
    return write(folder / f"{name}.jsonl", texts), write(folder / f"{name}-questions.jsonl", asked)


def counted(texts: Path | None, examples: Path | None = None, questions: Path | None = None) -> DataStats:
    return measure_files(texts, examples, questions, token_counting(None))


def advice(
    laptop: Machine, texts: Path, examples: Path | None, questions: Path, **answers: Any
) -> Recommendation:
    files = {"documents": texts, "examples": examples, "questions": questions}
    given = {key: path for key, path in files.items() if path is not None}
    return recommend({**given, "model": DEFAULT_MODEL, "behaviour_gap": "high", **answers}, machine=laptop)


def test_own_documents_hold_the_answers_and_nothing_is_said(example: Path, laptop: Machine) -> None:
    rec = advice(laptop, example / "documents", example / "examples.jsonl", example / "questions.jsonl")
    assert rec.profile.answers_in_documents == 1.0
    assert rec.profile.sources["answers_in_documents"].note.startswith(
        "a passage supports the answer to 80 of 80"
    )
    assert rec.to_json()["said_first"] == []
    assert rec.choice == "hybrid"


def test_documents_of_another_house_are_said_first_and_weighed(
    root: Path, example: Path, laptop: Machine, tmp_path: Path
) -> None:
    """In every reading: reasons, JSON, plan file; no documents in the prompt either; the rows are named."""
    other, _ = house(root, "bakery", tmp_path)
    rec = advice(laptop, other, example / "examples.jsonl", example / "questions.jsonl")
    page = rec.to_json()
    for ranked in page["ranked"]:
        assert ranked["reasons"][0]["rule"] == "KN013"
    (first,) = page["said_first"]
    assert "give the documents that hold the answers, or correct the answers" in first["text"]
    assert "q001 (line 1)" in first["text"] or "q002 (line 2)" in first["text"]
    assert len(first["evidence"]) >= 2
    scores = {ranked["method"]: ranked["score"] for ranked in page["ranked"]}
    assert rec.choice not in ("rag", "hybrid")
    assert scores["hybrid"] < scores["lora"]
    assert scores["rag"] < scores["prompting"]
    assert "long-context" not in page["also_measure"]
    plan = tmp_path / "plan.yaml"
    write_plan(rec.plan(), plan)
    assert "# First: the documents hold the right answer to only" in plan.read_text("utf-8")
    assert read_plan(plan).said_first == (first["text"],)


def test_a_persons_share_goes_before_the_count(
    root: Path, example: Path, laptop: Machine, tmp_path: Path
) -> None:
    other, _ = house(root, "bakery", tmp_path)
    questions = example / "questions.jsonl"
    rec = advice(laptop, other, None, questions, answers_in_documents=0.9)
    assert rec.to_json()["said_first"] == []
    rec = advice(laptop, example / "documents", None, questions, answers_in_documents=0.2)
    assert rec.to_json()["said_first"][0]["text"].startswith("the documents hold 20% of the right answers")


@pytest.mark.parametrize("name", ["bakery", "library", "theatre"])
def test_customers_words_give_no_false_alarm(root: Path, tmp_path: Path, name: str) -> None:
    """Questions near the documents' words are held; of those in quite other words it is not known."""
    texts, questions = house(root, name, tmp_path)
    assert counted(texts, None, questions).counted["answers_in_documents"] >= 0.9
    texts, questions = house(root, name, tmp_path, far=True)
    assert "answers_in_documents" not in counted(texts, None, questions).counted


def test_another_language_is_counted_in_itself_and_not_across(root: Path, tmp_path: Path) -> None:
    questions = write(
        tmp_path / "q.jsonl", [{"question": asked, "answers": [answer]} for asked, answer in GERMAN_QUESTIONS]
    )
    own = counted(documents(tmp_path / "pool.jsonl", GERMAN_POOL), None, questions)
    assert own.counted["answers_in_documents"] >= 0.9
    museum = counted(documents(tmp_path / "museum.jsonl", GERMAN_MUSEUM), None, questions)
    assert museum.counted["answers_in_documents"] <= 0.1
    english, _ = house(root, "bakery", tmp_path)
    assert "answers_in_documents" not in counted(english, None, questions).counted


def test_refusals_labels_and_rows_without_answers_are_left_out(tmp_path: Path) -> None:
    texts = documents(tmp_path / "pool.jsonl", GERMAN_POOL)
    rows: list[dict[str, Any]] = [
        {"question": asked, "answers": [answer]} for asked, answer in GERMAN_QUESTIONS
    ]
    rows += [{"question": f"Gibt es Pinguin {n}?", "answerable": False} for n in range(20)]
    rows += [{"question": f"Darf Hund {n} ins Bad?", "answers": ["nein"]} for n in range(20)]
    facts = counted(texts, None, write(tmp_path / "q.jsonl", rows)).facts
    assert facts.answers is not None
    assert (facts.answers.of, facts.answers.rows) == (8, "question")
    labels = [
        {"prompt": f"Nachricht {n} an das Bad", "completion": "Kurs" if n % 2 else "Sauna"} for n in range(30)
    ]
    assert counted(texts, write(tmp_path / "e.jsonl", labels)).facts.answers is None
    assert counted(None, None, tmp_path / "q.jsonl").facts.answers is None
    few = write(tmp_path / "few.jsonl", rows[:3])
    assert counted(texts, None, few).facts.answers is None


def test_examples_stand_in_for_questions_and_a_sample_is_called_one(example: Path) -> None:
    facts = counted(example / "documents", example / "examples.jsonl").facts
    assert facts.answers is not None
    assert facts.answers.rows == "example"
    assert 100 < facts.answers.looked_up <= 200 < facts.answers.of <= 337
    assert facts.answers.rate >= 0.95
    assert f"a sample of {facts.answers.of} examples" in facts.answers.text


def test_examples_of_style_alone_say_nothing_about_documents(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": f"make it polite: give me the {word}",
            "completion": f"Could you please give me the {word}?",
        }
        for word in ("soup", "towel", "key", "bread", "coin", "water", "lamp", "chair", "table", "spoon")
    ]
    texts = documents(tmp_path / "pool.jsonl", GERMAN_POOL)
    assert counted(texts, write(tmp_path / "e.jsonl", rows)).facts.answers is None


@pytest.mark.parametrize(
    ("held", "decided", "sure", "warned"),
    [
        (0, 5, True, False),
        (1, 5, False, True),
        (5, 20, True, False),
        (9, 20, False, True),
        (10, 20, False, False),
    ],
)
def test_under_half_is_said_when_the_interval_is(held: int, decided: int, sure: bool, warned: bool) -> None:
    """With a true share of one half it is said in 1 to 4 of 100 simulated files, with .77 in fewer than 1 of 1,000."""
    count = AnswerCount(share=WilsonShare.of(held, decided), looked_up=decided, of=decided, rows="question")
    assert count.surely_under_half is sure
    assert (count.rate < 0.5 and not sure) is warned


def test_an_unsure_count_is_a_warning_and_no_reason(laptop: Machine, tmp_path: Path) -> None:
    texts = documents(tmp_path / "pool.jsonl", GERMAN_POOL)
    rows = [{"question": asked, "answers": [answer]} for asked, answer in GERMAN_QUESTIONS[:3]]
    rows += [
        {"question": f"Wie heißt der Direktor von Schloss {name}?", "answers": [f"Graf {name}"]}
        for name in ("Altenburg", "Birkenfeld", "Dornheim", "Eschwege")
    ]
    questions = write(tmp_path / "q.jsonl", rows)
    stats = counted(texts, None, questions)
    assert stats.counted["answers_in_documents"] == pytest.approx(3 / 7, abs=1e-4)
    (warning,) = stats.warnings
    assert warning.startswith(
        "it may be chance, but the documents hold the right answer to only 3 of 7 questions"
    )
    assert not any(
        f.rule.first for f in rank_methods(advice(laptop, texts, None, questions).profile).findings
    )
