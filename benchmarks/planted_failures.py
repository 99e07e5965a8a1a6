"""Failures planted by changing the data of a house, and which of them ``tunewise why`` names rightly.

``python -m benchmarks.planted_failures HOUSE --out DIR [--model NAME]`` runs the arm rag on the house as it is, then with
its plants, and prints the causes named beside those planted. The model ``reader`` is a server of this process that answers
with the sentence of its passages that the answerability model scores highest, or refuses: it reads well and is fast, so that
failures are those that were planted. A house is a folder with documents.jsonl, questions.jsonl
and plants.jsonl, rows of ``{"id", "cause", ...}`` with the edits ``delete``, ``documents``, ``question``, ``gold``,
``answerable``, ``k`` (passages shown) and ``rule`` (a check that every reply must meet). Those with a ``k`` or a ``rule``
are run apart, all others together. A plant counts where its question was answered rightly before, if it had an answer, and
its answer is wrong (or not in form) afterwards: the others have planted no failure. Of those, one came about as planted
where the gold document is in the prompt and among the first hits, or is not, and the answer is a refusal, or is not, as the
cause says: a search may find what was worded so as not to be found.

The houses in benchmarks/planted were written by two writers who saw the seven causes in words, and neither the code nor each
other. Rules and thresholds were chosen on the first; the second was looked at once.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rag.embedding.reranker import Scorer
from rag.files import write_json, write_text
from rag.text.words import sentences
from runners.failures.causes import Cause
from runners.failures.failures import find_causes
from runners.failures.gold_search import FOUND_DEPTH
from runners.models.resolve import resolve_model
from runners.run_folder import SCORES, TRIAL, read_journal
from runners.runs.opened import OpenRun
from runners.scoring.correctness import stored_right
from runners.trial.trial import ANSWERS

K = 4
READER = "reader"
REFUSAL = "I could not find that in our documents."


def main() -> None:
    """Run one house and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("house", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default=READER)
    flags = parser.parse_args()
    with reading_server() if flags.model == READER else nullcontext(flags.model) as model:
        result = {**score_house(flags.house, flags.out, model), "model": flags.model}
    write_json(flags.out / "result.json", result)
    for row in result["plants"]:
        mark = " " if row["as_planted"] else "*"
        print(f"{row['id']:6} {row['planted']:17}{mark}{row['named']:17} {row['evidence'][:150]}")
    for name, counts in (("all", result["all"]), ("came about as planted", result["as_planted"])):
        print(
            f"{name}: {sum(n for n, _ in counts.values())} of {sum(of for _, of in counts.values())} named rightly; {counts}"
        )
    print(f"no failure planted: {result['no_failure']}")


@contextmanager
def reading_server() -> Iterator[str]:
    """Serve the reader on the loopback interface; yield its name as a plan has it."""
    from rag.embedding.answerability import AnswerabilityModel

    reader, lock = AnswerabilityModel(resolve_model("all-minilm-l6-v2").folder), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            """List the one model."""
            self._send({"data": [{"id": READER, "object": "model"}]})

        def do_POST(self) -> None:
            """Answer one chat."""
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                text = read_passages(reader, body["messages"][-1]["content"])
            message = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            self._send({"choices": [message], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})

        def _send(self, body: object) -> None:
            raw = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"openai:{READER}@http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()


def read_passages(reader: Scorer, turn: str) -> str:
    """Return the sentence of a prompt's passages that answers its question best, or a refusal."""
    passages, _, question = turn.rpartition("Question:")
    texts, title = [], ""
    for line in passages.splitlines():
        if heading := re.match(r"\S+ \[\d+\] (.*) \(", line):
            title = heading[1]
        elif not re.match(r"\S+ end$|Data from documents", line):
            texts += [(title, sentence) for sentence in sentences(line)]
    if not texts:
        return REFUSAL
    scores = reader.scores(question.strip(), [f"{title}. {sentence}" for title, sentence in texts])
    best = int(scores.argmax())
    return texts[best][1] if scores[best] > 0 else REFUSAL


def score_house(house: Path, out: Path, model: str) -> dict[str, Any]:
    """Run a house without and with its plants; return each plant with the cause named."""
    plants, questions = _rows(house / "plants.jsonl"), _rows(house / "questions.jsonl")
    before = _answered_rightly(run_house(house, questions, [], out / "plain", model))
    by_id = {question["id"]: question for question in questions}
    rows, no_failure = [], Counter[str]()
    for name, part in _parts(plants).items():
        run = run_house(house, questions, part, out / name, model)
        named = {answer["id"]: answer for answer in find_causes(run, "rag").to_json()["questions"]}
        states = _states(run, by_id)
        for plant in part:
            had_answer = by_id[plant["id"]]["answerable"]
            if plant["id"] not in named or (had_answer and not before[plant["id"]]):
                no_failure[plant["cause"]] += 1
                continue
            found = named[plant["id"]]
            rows.append(
                {
                    "id": plant["id"],
                    "planted": plant["cause"],
                    "named": found["cause"],
                    "as_planted": _came_about(plant["cause"], states[plant["id"]]),
                    "answer": found["answer"],
                    "evidence": found["evidence"],
                }
            )
    return {
        "house": house.name,
        "plants": rows,
        "all": _counts(rows),
        "as_planted": _counts([row for row in rows if row["as_planted"]]),
        "no_failure": dict(no_failure),
    }


def _counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    of = Counter(row["planted"] for row in rows)
    right = Counter(row["planted"] for row in rows if row["named"] == row["planted"])
    return {cause.value: (right[cause.value], of[cause.value]) for cause in Cause}


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """What the trial's journal and the search say of a question."""

    shown: bool
    """Whether a passage of the gold document is in the prompt."""
    found: bool
    """Whether one is among the first hits."""
    refused: bool


def _states(run: Path, questions: Mapping[str, Mapping[str, Any]]) -> dict[str, _State]:
    index = OpenRun.open(run).retrieval.index
    states = {}
    for row in read_journal(run / TRIAL / ANSWERS):
        document = questions[row["id"]]["doc_id"]
        hits = index.search(row["question"], FOUND_DEPTH)
        states[row["id"]] = _State(
            shown=document in {passage["doc"] for passage in row["context"]},
            found=document in {hit.chunk.doc for hit in hits},
            refused=row["refused"],
        )
    return states


def _came_about(cause: str, state: _State) -> bool:
    if cause == Cause.NOT_FOUND:
        return not (state.shown or state.found)
    if cause == Cause.CROWDED_OUT:
        return state.found and not state.shown
    if cause in (Cause.IGNORED, Cause.REFUSED_WRONGLY):
        return state.shown and state.refused == (cause == Cause.REFUSED_WRONGLY)
    return True


def run_house(
    house: Path,
    questions: Sequence[Mapping[str, Any]],
    plants: Sequence[Mapping[str, Any]],
    out: Path,
    model: str,
) -> Path:
    """Write a copy of the house with some plants, run the arm rag on it, and return the run's folder."""
    import tunewise

    shutil.rmtree(out / "house", ignore_errors=True)
    (out / "house" / "documents").mkdir(parents=True)
    for document in _rows(house / "documents.jsonl"):
        write_text(out / "house" / "documents" / document["name"], document["text"])
    by_id = {question["id"]: dict(question) for question in questions}
    for plant in plants:
        for name in plant.get("delete", ()):
            (out / "house" / "documents" / name).unlink()
        for name, text in plant.get("documents", {}).items():
            write_text(out / "house" / "documents" / name, text)
        row = by_id[plant["id"]]
        row |= {key: plant[key] for key in ("question", "answerable") if key in plant} | plant.get("gold", {})
    planted = {plant["id"] for plant in plants}
    every = {plant["id"] for plant in _rows(house / "plants.jsonl")}
    asked = [row for id, row in by_id.items() if id in (planted or every)]
    dev = [row for id, row in by_id.items() if id not in every]
    documents = {file.name for file in (out / "house" / "documents").iterdir()}
    for row in (*asked, *dev):  # a deleted document is none that a question may name
        row["doc_id"] = row["doc_id"] if row["doc_id"] in documents else None
    for name, rows in (("test", asked), ("dev", dev)):
        write_text(out / "house" / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    plan = {
        "schema": 1,
        "name": f"planted-{house.name}",
        "choice": "rag",
        "model": {"name": model},
        "data": {
            "documents": str(out / "house" / "documents"),
            "questions": str(out / "house" / "dev.jsonl"),
            "test_questions": str(out / "house" / "test.jsonl"),
        },
        "steps": [
            {"kind": "index", "k": next((plant["k"] for plant in plants if "k" in plant), K)},
            {"kind": "evaluate", "arm": "rag", "retrieval": True},
        ],
        "checks": [
            {"kind": "regex", "value": plant["rule"], "text": "the house's rule"}
            for plant in plants[:1]
            if "rule" in plant
        ],
        "prompts": {"refusals": [REFUSAL], "context": "{passages}\n\nQuestion: {question}"},
        "weights": {"right": 1.0},
        "max_new_tokens": 40,
    }
    write_text(out / "plan.yaml", json.dumps(plan))
    run = tunewise.run(out / "plan.yaml", out / "run", overwrite=True, accept_failing_gold=True)
    return tunewise.judge(run).path


def _rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def _answered_rightly(run: Path) -> dict[str, bool]:
    scores = json.loads((run / TRIAL / SCORES).read_text("utf-8"))["arms"]["rag"]
    return {id: stored_right(values) for id, values in scores.items()}


def _parts(plants: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the plants by the run that they are in."""
    parts: dict[str, list[Mapping[str, Any]]] = {"together": [], "k": [], "rule": []}
    for plant in plants:
        parts["k" if "k" in plant else "rule" if "rule" in plant else "together"].append(plant)
    return {name: part for name, part in parts.items() if part}


if __name__ == "__main__":
    main()
