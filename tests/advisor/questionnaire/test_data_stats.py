"""Counting examples: repeats, notes and warnings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advisor.questionnaire import data_stats
from advisor.questionnaire.answers import Answers
from advisor.questionnaire.data_facts import DataFacts
from advisor.questionnaire.data_stats import measure_files, token_counting
from advisor.questionnaire.file_facts import count_facts
from advisor.questionnaire.gather import complete_situation
from advisor.recommendation.ranking import Ranking, rank_methods
from advisor.recommendation.recommend import recommend_for_profile
from runners.data.examples import load_examples
from runners.data.questions import load_questions
from runners.resources.machine import Machine
from runners.tokenization.token_estimate import count_pieces

COUNTED = (9_362, 10_151, 7_966, 7_890, 8_457)
"""Tokens of the shipped example's documents by SmolLM2, Mistral (32,000 pieces), Llama 3, Llama 4 and Tekken."""


def row(number: int) -> tuple[str, str]:
    """Return a long question of unique words, and a reply that all rows share."""
    return " ".join(f"{letter}{number}" for letter in "abcdefghijklmnopqrstuvwxyz"), "and so it is, madam"


def counts(tmp_path: Path, rows: list[tuple[str, str]]) -> tuple[int, str, tuple[str, ...]]:
    """Write the rows as examples and return the count, its note and the warnings."""
    path = tmp_path / "examples.jsonl"
    path.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in rows), "utf-8")
    stats = measure_files(None, path, None, token_counting(None))
    return stats.counted["labelled_examples"], stats.notes["labelled_examples"], stats.warnings


def test_exact_and_near_repeats_are_counted_once(tmp_path: Path) -> None:
    rows = [row(number) for number in range(30)]
    again = [(prompt + ", please", reply) for prompt, reply in rows[:4]]
    count, note, warnings = counts(tmp_path, [*rows, rows[0], rows[1], *again])
    assert (count, note) == (30, "36 rows (prompt-completion), 2 exact and 4 near repeats counted once")
    assert warnings == ()


def test_many_near_repeats_give_a_warning(tmp_path: Path) -> None:
    rows = [row(number) for number in range(12)]
    again = [(prompt + " now", reply) for prompt, reply in rows]
    count, _, warnings = counts(tmp_path, [*rows, *again])
    assert (count, warnings) == (12, ("12 of 24 examples are nearly the same as others: they count as 12",))


def test_same_text_with_other_label_is_another_example(tmp_path: Path) -> None:
    """With labels, nearly equal texts show where the classes divide."""
    text = row(0)[0]
    rows = [(f"{text} {more}", label) for more in ("one", "one more") for label in ("late", "lost", "found")]
    count, note, _ = counts(tmp_path, rows * 3)
    assert (count, note) == (3, "18 rows (prompt-completion), 12 exact and 3 near repeats counted once")


def test_no_repeat_note_without_repeats(tmp_path: Path) -> None:
    rows = [(f"a{n} b{n} c{n} d{n}", f"reply {n} of many kinds, number {n}") for n in range(20)]
    assert counts(tmp_path, rows)[:2] == (20, "20 rows (prompt-completion)")


def test_shipped_examples_have_no_repeats(example: Path) -> None:
    """The rows follow few patterns, yet all differ."""
    stats = measure_files(None, example / "examples.jsonl", None, token_counting(None))
    assert (stats.counted["labelled_examples"], stats.notes["labelled_examples"]) == (
        357,
        "357 rows (messages)",
    )
    assert stats.counted["unlabelled_tokens"] == 0, "chats hold no plain text to learn"


def test_raw_texts_are_counted_in_tokens_only(tmp_path: Path) -> None:
    """Raw texts give no count of examples and no output format."""
    for name in ("a.md", "b.txt"):
        (tmp_path / name).write_text("Forty letters are ten tokens, or nearly..", "utf-8")
    stats = measure_files(None, tmp_path, None, token_counting(None))
    assert stats.counted == {"unlabelled_tokens": 20}


def test_counts_of_long_files_are_scaled_from_first_rows(tmp_path: Path) -> None:
    """A warning says so."""
    path, most = tmp_path / "many.csv", data_stats.MAX_EXAMPLES
    path.write_text("prompt,completion\n" + "".join(f"q{n},a{n}\n" for n in range(most * 2)), "utf-8")
    stats = measure_files(None, path, None, token_counting(None))
    assert stats.counted["labelled_examples"] == 2 * most
    assert stats.warnings == (f"{path} has 40,000 rows; the first 20,000 were looked at",)


def test_questions_near_examples_give_a_warning(tmp_path: Path) -> None:
    """The warning names the plan key that leaves them out."""
    rows = [row(number) for number in range(12)]
    counts(tmp_path, rows)
    asked = (rows[3][0] + " please", "Is there a lounge on board of it?")
    questions = [{"question": question, "answers": ["yes"]} for question in asked]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions), "utf-8")
    (warning,) = measure_files(
        None, tmp_path / "examples.jsonl", tmp_path / "q.jsonl", token_counting(None)
    ).warnings
    assert warning.startswith(
        "1 test question nearly the same as an example (question line 1 = example line 4)"
    )
    assert "near_repeats: leave_out" in warning


def facts(tmp_path: Path, rows: list[tuple[str, str]], output_format: str | None = None) -> DataFacts:
    """Write the rows as examples and return what is counted beyond the answers."""
    path = tmp_path / "examples.jsonl"
    path.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in rows), "utf-8")
    return measure_files(None, path, None, token_counting(None), output_format=output_format).facts


def test_questions_without_any_right_answer_give_a_warning(tmp_path: Path) -> None:
    table = tmp_path / "q.csv"
    table.write_text("question;team\nWhere?;cards\nWhen?;hours\n", "utf-8")
    (warning,) = measure_files(None, None, table, token_counting(None)).warnings
    assert warning.startswith(
        "2 of 2 questions without an expected answer (the first: line 2, keys question, team)"
    )
    columns = {"prompt": "question", "reply": "team"}
    assert measure_files(None, None, table, token_counting(None), columns=columns).warnings == ()


def test_labels_and_their_shares_are_counted(tmp_path: Path) -> None:
    """A person's word on the output decides whether short replies are labels."""
    rows = [(f"My parcel {n} of the week is not here", "late" if n % 3 else "lost") for n in range(30)]
    counted = facts(tmp_path, rows)
    assert (counted.label_count, counted.rows_per_label, counted.largest_label_share) == (2, 15.0, 0.6667)
    assert facts(tmp_path, rows, "fixed").label_count is None
    rare = [(f"Since which version is item {n} there?", f"{n // 2}.0") for n in range(30)]
    assert facts(tmp_path, rare).label_count is None
    assert facts(tmp_path, rare, "labels").rows_per_label == 2.0


@pytest.mark.parametrize(
    ("name", "language", "least", "most"),
    [
        ("qed_reading", "en", 0.9, 1.0),
        ("canard_rewrite", "en", 0.5, 1.0),
        ("xquad_es", "es", 0.0, 0.05),
        ("tldr_de", "de", 0.0, 0.05),
        ("germeval_offence", "de", None, None),
        ("restore_case", "en", 0.0, 0.05),
        ("endoflife_dates", "en", 0.0, 0.05),
        ("browser_compat", "en", 0.0, 0.05),
        ("hybrid_concierge", "en", 0.0, 0.05),
    ],
)
def test_language_and_passages_of_public_sets(
    shared: Path, name: str, language: str, least: float | None, most: float | None
) -> None:
    """Only where the prompt holds a paragraph or the talk so far is the reply in it; rewriting is not mistaken for it."""
    rows = load_examples(shared / "data" / name / "train.jsonl", None, 300).rows
    stated = "labels" if least is None else "fixed"
    counted = count_facts(rows, (), output_format=stated)
    share = counted.passages_in_prompts
    assert counted.language == language
    assert share is None if least is None or most is None else share is not None and least <= share <= most


def test_questions_and_documents_stand_in_for_examples(shared: Path) -> None:
    """Prompts that hold passages in training, but not when they are asked, need retrieval."""
    folder = shared / "data" / "xquad_en"
    asked = load_questions(folder / "questions.jsonl")
    reading = load_examples(shared / "data" / "qed_reading" / "train.jsonl", None, 300).rows
    assert count_facts((), asked) == DataFacts(language="en", passages_in_prompts=0.0)
    assert count_facts(reading, asked).passages_in_prompts == 0.0
    assert (
        count_facts(
            (), (), ["Выбор модели зависит от задачи и от данных, которые мы имеем. Это так."]
        ).language
        == "ru"
    )
    assert (
        count_facts(
            (), (), ["Det er ikke så vanskelig, men hva skjer etter at han har sett seg om?"]
        ).language
        == "no"
    )
    assert count_facts((), (), ["x = f(y)", "12.5"]) == DataFacts()


def test_questions_without_an_expected_answer_are_counted_with_the_keys_of_the_first(tmp_path: Path) -> None:
    rows = [
        {"question": "When does the ferry leave?", "answers": ["9:40"]},
        {"question": "Do you sell bicycles?", "answerable": False},
        {"question": "¿Cuánto cuesta la llave?", "respuesta": "12 euros"},
        {"question": "Who keeps the lamp?", "answers": ""},
    ]
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (warning,) = measure_files(None, None, path, token_counting(None)).warnings
    assert warning.startswith(
        "2 of 4 questions without an expected answer (the first: line 3, keys question, respuesta)"
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:2]), "utf-8")
    assert measure_files(None, None, path, token_counting(None)).warnings == ()


def test_one_skipped_file_is_named_without_an_ellipsis(tmp_path: Path) -> None:
    (tmp_path / "keys.md").write_text("A key costs 12 euros.\n", "utf-8")
    (tmp_path / "empty.md").write_text("", "utf-8")
    (warning,) = measure_files(tmp_path, None, None, token_counting(None)).warnings
    assert warning == "skipped 1 file or row: empty.md (empty: it has no text)"


def test_an_instruction_in_front_of_every_example_and_of_no_question_gives_a_warning(tmp_path: Path) -> None:
    """Alpaca's rows have it in front of the input; with it as the system turn there is nothing to warn of."""
    rows = [
        {"instruction": "Sort it.", "input": row(n)[0], "output": "a" if n % 2 else "b"} for n in range(8)
    ]
    path, questions = tmp_path / "examples.jsonl", tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    questions.write_text(
        json.dumps({"question": "Is there a lounge on board of it?", "answers": ["a"]}) + "\n", "utf-8"
    )
    (warning,) = measure_files(None, path, questions, token_counting(None)).warnings
    assert warning.startswith("all 8 examples begin with the same instruction, and no question does")
    columns = dict(part.split("=") for part in warning.rsplit(" ", 1)[1].split(","))
    assert measure_files(None, path, questions, token_counting(None), columns=columns).warnings == ()
    questions.write_text(
        json.dumps({"question": "Sort it.\n\nIs there a lounge?", "answers": ["a"]}) + "\n", "utf-8"
    )
    assert measure_files(None, path, questions, token_counting(None)).warnings == ()


def fact_rows(stating: int, plain: int) -> list[tuple[str, str]]:
    """Return rows whose replies state a price or a time, and rows whose replies do not."""
    names = [f"{first}{last}" for first in "bcdfgkmprt" for last in ("ane", "ello", "ista", "umo")]
    prices = [(f"How much is a {n}?", f"A {n} is £{i}.50. Anything else?") for i, n in enumerate(names)]
    others = [(f"Is the {n} nice warm?", f"It is! Warm the {n} gently and enjoy.") for n in names]
    return prices[:stating] + others[:plain]


def test_replies_that_are_facts_count_as_a_task_of_facts_without_documents(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    documents = tmp_path / "notes"
    documents.mkdir()
    (documents / "a.md").write_text("# Prices\n\nA loaf is £2.50.\n", "utf-8")

    def measured(stating: int, plain: int, folder: Path | None = None) -> data_stats.DataStats:
        rows = fact_rows(stating, plain)
        path.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in rows), "utf-8")
        return measure_files(folder, path, None, token_counting(None))

    facts = measured(20, 15)
    assert facts.facts.facts_in_replies == pytest.approx(20 / 35, abs=1e-4)
    assert facts.counted["task_needs_facts"] == "new"
    assert facts.notes["task_needs_facts"].startswith("57% of the replies state prices, times")
    assert any("which documents hold these?" in line for line in facts.warnings)
    style = measured(10, 25)
    assert style.facts.facts_in_replies == pytest.approx(10 / 35, abs=1e-4)
    assert "task_needs_facts" not in style.counted
    assert not any("which documents" in line for line in style.warnings)
    given = measured(20, 15, documents)
    assert given.facts.facts_in_replies is None
    assert given.notes["task_needs_facts"] == "there are documents"


def test_replies_that_are_facts_are_a_reason_against_tuning_on_them(tmp_path: Path, laptop: Machine) -> None:
    """Without documents half of the replies are prices: no longer "full", which learns them by heart."""
    path = tmp_path / "examples.jsonl"
    rows = fact_rows(35, 30)
    path.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in rows), "utf-8")

    def advice(**answers: str) -> Ranking:
        given = Answers().put("flag", {"examples": str(path), **answers})
        return rank_methods(complete_situation(given, laptop).profile)

    advised = advice()
    assert advised.choice == "rag"
    reasons = {finding.rule.code(): finding.text for finding in advised.findings}
    assert "the examples would teach these" in reasons["RK002"]
    without_documents = advice(corpus_tokens="0")
    assert without_documents.choice in ("prompting", "few-shot")
    assert "RK002" in {finding.rule.code() for finding in advice(task_needs_facts="none").findings}


@pytest.mark.parametrize("counted", COUNTED)
def test_estimated_tokens_hold_what_five_tokenizers_count(root: Path, counted: int) -> None:
    """Of the shipped example's documents, which four characters a token made 7,273."""
    documents = root / "advisor" / "harbor_desk" / "documents"
    stats = measure_files(documents, None, None, token_counting(None))
    ((key, low, high),) = stats.facts.token_ranges
    assert key == "corpus_tokens"
    assert low < counted < high
    assert stats.notes[key].endswith(f"estimated from words, digits and marks: {low:,} to {high:,}")


def test_advice_that_turns_within_the_error_of_an_estimate_says_so(
    root: Path, laptop: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All documents may fit the model or not; by its tokenizer, or where a person gives the number, nothing is open."""
    monkeypatch.setenv("TUNEWISE_CACHE", str(tmp_path))
    documents = str(root / "advisor" / "harbor_desk" / "documents")
    answers = Answers().put("flag", {"documents": documents, "model": "smollm2-135m-instruct"})
    estimated, given = (
        recommend_for_profile(complete_situation(each, laptop).profile)
        for each in (answers, answers.put("flag", {"corpus_tokens": 7_500}))
    )
    assert "long-context may be blocked: tunewise models pull smollm2-135m-instruct" in estimated.token_doubt
    assert estimated.to_json()["token_doubt"] == estimated.token_doubt
    assert given.to_json()["token_doubt"] is None


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("Вход стоит двенадцать евро, музей открыт ежедневно.", 10, 45), ("入場料は大人千二百円です。", 8, 24)],
)
def test_other_alphabets_are_counted_by_letters(text: str, least: int, most: int) -> None:
    assert least <= count_pieces(text) <= most
