"""A small harbour whose runs a contract observes: documents, examples, questions, and a scripted model on the
loopback interface.

The model speaks the OpenAI API. It answers with a question's gold where the passages in its prompt hold it and a
fixed draw for this question and model allows it, and with another value or a refusal elsewhere; as ``judge`` it
grades. Nothing depends on the machine, the day or the order of requests.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from scripts.contracts.common import Program, write_rows

REFUSAL = "I could not find that in our documents."
SKILLS = {"reader": 0.9, "weak": 0.45, "teacher": 0.97, "dear": 0.8}
"""The share of questions that a model answers rightly when it sees the passage, by its name."""
TOPICS = ("invoice", "delivery", "password", "refund", "opening", "ferry", "cabin", "bicycle")
LABELS = {"invoice": "billing", "refund": "billing", "delivery": "shipping", "password": "account"}
PIERS = 36
PRICES = {"usd_per_million_input": 0.5, "usd_per_million_output": 2.0}
"""Of the plan's model: without a price its answers cost seconds, which differ from machine to machine."""
FACTS = {"berths": "has {} berths", "ramps": "has {} ramps for cars", "lamps": "is lit by {} lamps"}


def share(*parts: object) -> float:
    """Return a number from 0 to 1 that is always the same for the same parts."""
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:12], 16) / 16**12


def fact(pier: int, what: str) -> int:
    """Return how many of something a pier has."""
    return 3 + (pier * 7 + len(what) * 5) % 40


class ScriptedModel(ThreadingHTTPServer):
    """The model, on a free port of the loopback interface."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.gold: dict[str, str] = {}
        """The right answer by the question."""
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        """The address that a model's name ends with."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def answer(self, model: str, messages: list[dict[str, Any]]) -> str:
        """Return the words of a model."""
        turn = str(messages[-1]["content"])
        if model == "judge":
            return self._grade(turn)
        question = next((text for text in sorted(self.gold, key=len, reverse=True) if text in turn), "")
        gold = self.gold.get(question)
        if gold is None:
            return REFUSAL
        sees = "Passages:" in turn
        skill = SKILLS.get(model, 0.7) * (1.0 if sees or not gold.isdigit() else 0.2)
        shots = 0.08 * (len(messages) > 2)
        if share(model, question, sees) < skill + shots and (
            not sees or f" {gold} " in f" {turn} ".replace(".", " ")
        ):
            return f"It is {gold} [1]." if sees else gold
        return (
            REFUSAL
            if share("refuses", model, question) < 0.4
            else f"It is {share(model, question) * 900:.0f}."
        )

    def _grade(self, turn: str) -> str:
        if "Which answer is better?" in turn:
            return "TIE"
        asked = next((text for text in sorted(self.gold, key=len, reverse=True) if text in turn), "")
        given = turn.split("ANSWER TO GRADE")[-1].split("\n\n")[0]
        right = asked != "" and self.gold[asked] in given
        return "right" if right is (share("judge", asked, given) < 0.9) else "wrong"


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedModel
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """List the models."""
        self._reply({"data": [{"id": name, "object": "model"} for name in (*SKILLS, "judge")]})

    def do_POST(self) -> None:
        """Answer a chat completion; words beyond max_tokens are cut."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        words = self.server.answer(body["model"], body["messages"]).split(" ")
        most = int(body.get("max_tokens") or body.get("max_completion_tokens") or 64)
        message = {"role": "assistant", "content": " ".join(words[:most])}
        choice = {"index": 0, "message": message, "finish_reason": "length" if len(words) > most else "stop"}
        asked = sum(len(str(each["content"]).split()) for each in body["messages"])
        usage = {"prompt_tokens": asked, "completion_tokens": min(most, len(words))}
        self._reply({"choices": [choice], "usage": usage, "model": body["model"]})

    def _reply(self, body: Any) -> None:
        raw = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        with suppress(BrokenPipeError):
            self.wfile.write(raw)


@contextmanager
def scripted_model() -> Iterator[ScriptedModel]:
    """Start the model, and end it."""
    server = ScriptedModel()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def pier_text(pier: int, changed: bool = False) -> str:
    """Return the document of a pier."""
    lines = [f"# Pier {pier}", ""]
    for what, text in FACTS.items():
        count = fact(pier, what) + (100 if changed else 0)
        lines.append(f"Pier {pier} {text.format(count)}. The harbour master counted the {what} in spring.")
    return "\n".join(lines) + "\n"


def question_rows(count: int, **more: Any) -> list[dict[str, Any]]:
    """Return questions about piers, every tenth of them without an answer in the documents."""
    rows: list[dict[str, Any]] = []
    for n in range(count):
        pier, what = n % PIERS, list(FACTS)[n // PIERS % len(FACTS)]
        if n % 10 == 9:
            rows.append(
                {"id": f"q{n:03}", "question": f"Who painted pier {n}, in form {n}?", "answerable": False}
            )
            continue
        text = f"How many {what} does pier {pier} have, asked as {n}?"
        rows.append(
            {
                "id": f"q{n:03}",
                "question": text,
                "answers": [str(fact(pier, what))],
                "doc_id": f"pier{pier:02}.md",
                **more,
            }
        )
    return rows


def label_rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Return messages with their label as the reply."""
    return [
        {
            "prompt": f"Message {n}: where is the {TOPICS[n % 8]} that I asked for?",
            "completion": LABELS.get(TOPICS[n % 8], "other"),
        }
        for n in range(start, start + count)
    ]


def form_rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Return orders with their JSON as the reply."""
    return [
        {
            "prompt": f"Read the order: {n + 1} tickets for pier {n % 12}",
            "completion": json.dumps({"tickets": n + 1, "pier": n % 12}),
        }
        for n in range(start, start + count)
    ]


def as_questions(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return examples as questions."""
    return [
        {"id": f"q{n:03}", "question": row["prompt"], "answers": [row["completion"]]}
        for n, row in enumerate(rows)
    ]


def write_harbour(folder: Path) -> None:
    """Write the documents, changed documents, examples and questions."""
    for name in ("piers", "changed"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for pier in range(PIERS):
            text = pier_text(pier, name == "changed" and pier % 3 == 0)
            (folder / name / f"pier{pier:02}.md").write_text(text, "utf-8")
    style = [
        {"prompt": f"When does boat {n} sail?", "completion": f"It is {n % 12 + 1} [1].", "doc_id": f"pier{n % PIERS:02}.md"}
        for n in range(60)
    ]  # fmt: skip
    write_rows(folder / "style.jsonl", style)
    write_rows(folder / "labels.jsonl", label_rows(80))
    write_rows(folder / "forms.jsonl", form_rows(60))


def plan_of(
    server: ScriptedModel, files: Path, questions: Path, arms: list[dict[str, Any]], **changes: Any
) -> dict[str, Any]:
    """Return a plan of the harbour; ``changes`` replace its keys, and None takes one out."""
    retrieves = any(arm.get("retrieval") for arm in arms)
    data = {
        "questions": str(questions),
        **({"documents": str(files / "piers")} if retrieves else {}),
        **changes.pop("data", {}),
    }
    plan: dict[str, Any] = {
        "schema": 1,
        "name": "harbour",
        "choice": arms[-1]["arm"],
        "model": {"name": f"openai:reader@{server.url}", "at_once": 1, **PRICES},
        "data": data,
        "prompts": {"system": "Answer from the passages, in one short sentence.", "refusals": [REFUSAL]},
        "steps": [
            *([{"kind": "index", "k": 2}] if retrieves else []),
            *({"kind": "evaluate", **arm} for arm in arms),
        ],
        "weights": {"fact_recall": 1},
        "max_new_tokens": 32,
        "forgetting": {"prompts": 0},
        **changes,
    }
    return {key: value for key, value in plan.items() if value is not None}


def carry_out(
    program: Program, model: ScriptedModel, name: str, plan: Mapping[str, Any], *flags: str
) -> tuple[Path, int, str]:
    """Run a plan; return the run's folder, the exit code and what was said on the standard error."""
    for path in (plan["data"].get("questions"), plan["data"].get("test_questions")):
        for line in Path(path).read_text("utf-8").splitlines() if path else ():
            row = json.loads(line)
            for text in (row["question"], *row.get("wordings", ())):
                model.gold.update({text: row["answers"][0]} if row.get("answers") else {})
    file = program.folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(dict(plan)), "utf-8")
    done = program.run("run", file, "--out", program.folder / name, *flags)
    return program.folder / name, done.code, done.err
