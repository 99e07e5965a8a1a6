"""The part ``search`` of the contract check: the rank of the gold passage and the gate's decision on public
questions.

Three sets: a house's pool and two public ones, with all-MiniLM-L6-v2 and the settings that the program has by
default. One question is one character: the rank of the first passage of its gold document (``.`` beyond five), and
after it ``r`` where the gate refuses.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from scripts.contracts.common import Program, shared_folder, write_rows

PART = "search"
NEEDS_SHARED = (f"{PART}/",)
VERBATIM = (f"{PART}/",)
ASKED = 40
SETS = {
    "pool": "cases/houses/pool",
    "clapnq_dev": "data/clapnq_dev",
    "endoflife_dates": "data/endoflife_dates",
}


def observe() -> dict[str, Any]:
    """Return ranks, hits and decisions by set."""
    shared = shared_folder()
    values: dict[str, Any] = {}
    if shared is None:
        return values
    with Program(models=True) as program:
        for name, place in SETS.items():
            values |= {
                f"{PART}/{name}/{key}": value
                for key, value in set_values(program, name, shared / place).items()
            }
    return values


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def set_values(program: Program, name: str, folder: Path) -> dict[str, Any]:
    """Index a set, ask some of its questions with the gate fitted on others, and return what came of each."""
    if (folder / "questions.jsonl").is_file():
        rows = read_rows(folder / "questions.jsonl")
        random.Random(0).shuffle(rows)
        asked, dev, documents = rows[:ASKED], rows[ASKED : 2 * ASKED], folder / "documents.jsonl"
    else:
        asked, dev, documents = (
            read_rows(folder / "test.jsonl")[:ASKED],
            read_rows(folder / "dev.jsonl"),
            folder / "documents",
        )
    questions = write_rows(program.folder / f"{name}-test.jsonl", asked)
    gate = write_rows(program.folder / f"{name}-dev.jsonl", dev)
    index = program.folder / name
    built = program.run("index", "build", index, "--documents", documents, "--json")
    facts = json.loads(built.out or "{}")
    done = program.run("index", "search", index, "--questions", questions, "--gate", gate, "--json")
    found = [json.loads(line) for line in done.out.splitlines() if line.startswith("{")]
    values: dict[str, Any] = {
        "exit": [built.code, done.code],
        "chunks": facts.get("chunks"),
        "answers": len(found),
    }
    ranks, refused = "", 0
    hits = {1: 0, 5: 0}
    by_id = {row["id"]: row for row in asked}
    for answer in found:
        row = by_id[answer.get("wording_of", answer["id"])]
        documents_found = [
            hit.get("doc", hit.get("doc_id")) for hit in answer.get("hits", answer.get("results", []))
        ]
        gold = row.get("doc_id")
        rank = documents_found.index(gold) + 1 if gold in documents_found else 0
        says = answer.get("refused", answer.get("refuse", answer.get("decision")))
        refuses = says.get("refuse") if isinstance(says, dict) else says
        refused += bool(refuses)
        ranks += (str(rank) if 0 < rank <= 5 else ".") + ("r" if refuses else "")
        for most in hits:
            hits[most] += 0 < rank <= most
    return values | {"ranks": ranks, "hit@1": hits[1], "hit@5": hits[5], "refused": refused}
