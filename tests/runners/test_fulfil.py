"""Arms whose model is not in this process, a classifier or an endpoint, are served by the same clerk."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput, CannotRun
from runners.catalogue import catalogue
from runners.clerk import Clerk
from runners.completion import Sampling
from runners.data import Question
from runners.desk import Desk
from runners.execution import run_plan
from runners.plan import parse_plan
from runners.ticket import Reply, Ticket

LABELS = {
    "refund": ("I want my money back.", "Please refund me."),
    "lost": ("I left my bag.", "My coat is gone."),
}


@pytest.fixture
def desk(tmp_path: Path, server: Any, little_bert: Callable[..., Path]) -> Desk:
    """A run with a classifier beside a model by URL."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel

    words = sorted({word for texts in LABELS.values() for text in texts for word in text.rstrip(".").split()})
    tokenizer = Tokenizer(WordLevel({w: n for n, w in enumerate(["?", *words])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "embedder").mkdir()
    rows = [{"prompt": text, "completion": label} for label, texts in LABELS.items() for text in texts]
    asked = [{"question": "Give me back what I paid.", "reference": "refund"}]
    for name, body in (("examples", rows), ("questions", asked)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in body), "utf-8")
    plan = parse_plan(
        {
            "name": "p", "choice": "prompting", "model": {"name": f"openai:tern-2@{server.url}"},
            "embedder": {"name": str(little_bert(tmp_path / "embedder", tokenizer))},
            "data": {"examples": tmp_path / "examples.jsonl", "test_questions": tmp_path / "questions.jsonl"},
            "steps": [
                {"kind": "evaluate", "arm": "prompting"}, {"kind": "evaluate", "arm": "classifier", "classifier": True},
            ],
            "weights": {"exact_match": 1},
        }
    )  # fmt: skip
    return Desk(run_plan(plan, tmp_path / "run").path)


@pytest.fixture
def ask(desk: Desk) -> Iterator[Callable[..., tuple[Any, list[str]]]]:
    """Ask a running clerk; return what came of it, and the pieces."""
    clerk = Clerk(desk)
    clerk.start()
    choices, _ = catalogue(desk)

    def asking(name: str, asked: Any, **more: Any) -> tuple[Any, list[str]]:
        pieces: list[str] = []
        ended: list[Any] = []
        done = threading.Event()

        def end(result: Any) -> None:
            ended.append(result)
            done.set()

        clerk.put(Ticket(choices[name], asked, pieces.append, end, pieces=True, **more))
        assert done.wait(60)
        return ended[0], pieces

    yield asking
    clerk.stop()


def test_an_endpoint_and_a_classifier_answer(ask: Callable[..., Any], server: Any) -> None:
    server.answer = lambda body: "Aye, on Monday. Shall I book?"
    drawn = Sampling(0.7, 0.9, 11)
    reply, pieces = ask("prompting", Question("q", "When?"), sampling=drawn, limit=9)
    assert isinstance(reply, Reply)
    assert reply.text == "".join(pieces) == "Aye, on Monday. Shall I book?"
    assert len(pieces) > 1
    sent = server.seen[-1]
    assert (sent["temperature"], sent["top_p"], sent["seed"], sent["max_tokens"]) == (0.7, 0.9, 11, 9)
    label, pieces = ask("classifier", Question("q", "Please refund me."))
    assert (label.text, pieces) == ("refund", ["refund"])
    raw, _ = ask("tern-2", ({"role": "user", "content": "When?"},))
    assert (raw.text, raw.answer) == ("Aye, on Monday. Shall I book?", None)
    assert server.seen[-1]["messages"] == [{"role": "user", "content": "When?"}]


def test_what_an_endpoint_cannot_do_is_said(ask: Callable[..., Any], server: Any) -> None:
    text, _ = ask("tern-2", "Once upon a")
    assert isinstance(text, BadInput)
    server.faults = [lambda handler: handler.reply(401, {"error": {"message": "no"}})]
    refused, _ = ask("prompting", Question("q", "When?"))
    assert isinstance(refused, BadInput | CannotRun)
