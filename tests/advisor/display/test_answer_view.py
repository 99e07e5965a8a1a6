"""The lines below an answer on a terminal and in JSON: sources, unsupported sentences, contradictions, and the search."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from advisor.display.answer_view import show_answer, show_streaming
from advisor.mcp_server.reading_tools import answer_text
from advisor.verdict.right_answers import beside_answers
from advisor.workflows.demo import show_before_and_after
from rag.embedding.reranker import Scorer
from rag.files import append_lines
from rag.grounding.conflicts import find_conflicts
from rag.grounding.refusal import default_threshold
from rag.types import Chunk, Hit
from runners.arms.answer import BESIDE_NOTE, Answer, answer_all
from runners.arms.retriever import Retrieved
from runners.data.questions import Question
from runners.inference.types import Completion, NearestQuestion
from runners.plan.schema import Plan, RefusalSettings, parse_plan
from runners.plan.steps import EvaluateStep
from runners.scoring.scores import citation_precision, citation_share
from runners.serving.client import RunningServer
from runners.serving.http.responses import ResponseIdentity, x_tunewise_body
from runners.serving.request import RequestResult
from runners.serving.served_models import ServedModel
from runners.serving.server_record import ServerRecord
from runners.trial.staleness import JOURNAL
from tests.support.scripted import WholeAnswers

ASKED = "What does an adult single cost?"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return parse_plan(
        {
            "schema": 1,
            "name": "p",
            "choice": "rag",
            "model": {"name": "smollm2-135m-instruct"},
            "weights": {"style": 1},
            "steps": [{"kind": "index"}, {"kind": "evaluate", "arm": "rag", "retrieval": True}],
            "data": {"documents": "x"},
        }
    )


@pytest.fixture
def hits() -> tuple[Hit, ...]:
    texts = {
        "fares.md": ("An adult single costs 14.50 euros.\nChildren travel free.", {"date": "2026-03-01"}),
        "old.md": ("An adult single costs 12 euros.", {"date": "2025-03-01", "valid_until": "2026-02-28"}),
        "guide.pdf": ("Dogs :smile: [bold]pay[/] 3 euros at https://a.example \x1b[31m", {}),
    }
    return tuple(
        Hit(
            Chunk(
                n,
                doc,
                "Fares",
                0,
                text,
                0,
                len(text),
                line_start=4,
                line_end=5,
                page=2 if "pdf" in doc else None,
            ),
            0.5,
            0.6,
            1.0,
            metadata=metadata,
            expired="valid_until" in metadata,
        )
        for n, (doc, (text, metadata)) in enumerate(texts.items())
    )


class Scripted(WholeAnswers):
    """A retriever and a model with fixed results."""

    def __init__(self, hits: tuple[Hit, ...], text: str, reader: Scorer | None = None) -> None:
        self.hits = hits
        self.text = text
        self.reader = reader

    def find(self, questions: Sequence[str]) -> list[Retrieved]:
        decision = default_threshold().decide(questions[0], self.hits)
        searched = {"documents": 3, "passages": 1234, "generation": 1}
        return [Retrieved(self.hits, "shown", decision, ("1 document has expired.",), searched, self.reader)]

    def generate(
        self, chats: Any, max_new_tokens: int, on_batch: Any = None, known: Any = (), constraint: Any = None
    ) -> list[Completion]:
        completions = [Completion(self.text, 9, 5, 0.25, "stop") for _ in chats]
        on_batch(list(range(len(completions))), completions)
        return completions


class FixedReader:
    """An answerability model that gives every text the same log odds."""

    truncated = 0

    def __init__(self, log_odds: float) -> None:
        self.log_odds = log_odds

    def scores(self, question: str, texts: Sequence[str]) -> np.ndarray:
        return np.full(len(texts), self.log_odds, dtype=np.float32)


def ask(plan: Plan, hits: tuple[Hit, ...], text: str, reader: Scorer | None = None) -> Answer:
    scripted = Scripted(hits, text, reader)
    arm = next(step for step in plan.steps if isinstance(step, EvaluateStep))
    return answer_all(plan, arm, [Question("q", ASKED)], lambda: scripted, scripted)[0]


def printed(answer: Answer) -> str:
    out = io.StringIO()
    show_answer(answer, "rag", Console(file=out, width=40))
    return out.getvalue()


def test_a_restriction_that_a_sentence_lacks_is_shown(plan: Plan) -> None:
    text = "Guests with a pass enter free."
    hit = Hit(Chunk(0, "entry.md", "", 0, text, 0, len(text)), 1.0, 1.0, 1.0)
    shown = printed(ask(plan, (hit,), "Guests enter free."))
    assert "Guests enter free. [1?]" in shown
    assert f'[1] entry.md, line 1 says so with a restriction that the sentence lacks: "{text}"' in shown


def test_sentences_show_their_support(plan: Plan, hits: tuple[Hit, ...]) -> None:
    text = (
        "An adult single costs 14.50 euros. Cats sail for 9 euros. Children travel free and cats sleep below."
    )
    answer = ask(plan, hits, f"{text} Dogs :smile: pay 3 euros.")
    assert printed(answer).splitlines() == [
        "An adult single costs 14.50 euros. [1] Cats sail for 9 euros. [?] "
        "Children travel free and cats sleep below. [1?] Dogs :smile: pay 3 euros. [3]",
        '  [1] fares.md, line 4 (2026-03-01): "An adult single costs 14.50 euros."',
        '  [?] not supported by any passage: "Cats sail for 9 euros."',
        '  [1] fares.md, line 5 (2026-03-01) supports a part only: "Children travel free."',
        '  [3] guide.pdf, page 2: "Dogs :smile: [bold]pay[/] 3 euros at a.example"',
        "  the sources disagree (different numbers):",
        '    [1] fares.md, line 4 (2026-03-01), newer: "An adult single costs 14.50 euros."',
        '    [2] old.md, line 4 (2025-03-01, valid until 2026-02-28): "An adult single costs 12 euros."',
        "  1 document has expired.",
        "  (arm: rag)",
    ]
    reply = json.loads(json.dumps(answer.reply_json("rag")))
    assert reply["answer"].count("[1]") == 2
    assert [citation["support"] for citation in reply["citations"]] == [
        "supported",
        "unsupported",
        "partly",
        "supported",
    ]
    assert reply["conflicts"] == [citation.to_json() for citation in find_conflicts(ASKED, hits)]
    assert (reply["searched"]["passages"], reply["nearest"], reply["notes"]) == (
        1234,
        [],
        ["1 document has expired."],
    )
    assert reply["decision"]["refuse"] is False


def test_answer_beside_the_question_is_marked_everywhere(plan: Plan, hits: tuple[Hit, ...]) -> None:
    text = "Children travel free."
    answer = ask(plan, hits, text, FixedReader(-6.0))
    assert (answer.beside, answer.refused) == (True, False)
    assert printed(answer).splitlines()[:2] == [
        f"{text} [1?]",
        '  [1] fares.md, line 5 (2026-03-01) says this, but it seems not to be what was asked: "Children travel free."',
    ]
    assert BESIDE_NOTE in answer._repr_html_()
    reply = answer.reply_json("rag")
    assert (reply["beside"], reply["citations"][0]["support"]) == (True, "beside")
    assert citation_share(answer.citations, retrieval=True) == 0
    assert citation_precision(answer.citations) == 0
    summary, lines = answer_text(reply)
    assert summary == f"Answered with 1 citations. Doubtful: {BESIDE_NOTE}."
    assert lines[:3] == ["Arm: rag", f"{text} [1]", f"Doubtful: {BESIDE_NOTE}."]
    row = answer.to_json("rag", 0)
    refused = ask(plan, hits, plan.prompts.refusals[0]).to_json("rag", 0)
    liked = ask(plan, hits, text, FixedReader(6.0))
    assert not liked.beside
    assert printed(liked).splitlines()[0] == f"{text} [1]"
    assert BESIDE_NOTE not in liked._repr_html_()
    assert answer_text(liked.reply_json("rag"))[0] == "Answered with 1 citations."
    counted = beside_answers([row, refused, liked.to_json("rag", 0), {**row, "arm": "hybrid"}], "rag")
    assert counted.text == "1 of 2"
    # A plan may refuse such an answer, and name the nearest passage in its place.
    checked = plan.model_copy(update={"refusal": RefusalSettings(check="refuse")})
    refusal = ask(checked, hits, text, FixedReader(-6.0))
    assert (refusal.refused, refusal.citations, refusal.text) == (True, (), plan.prompts.refusals[0])
    assert refusal.marked.startswith(f"{refusal.text}\n→ ")
    assert refusal.reply_json("rag")["uncertain"]
    assert "(not certain: the passages do not support the model's answer)" in printed(refusal)
    assert refusal.to_json("rag", 0)["withheld"]["answer"] == text
    assert not ask(checked, hits, text, FixedReader(6.0)).refused


def test_demo_marks_what_is_beside_the_question(
    plan: Plan, hits: tuple[Hit, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {**ask(plan, hits, "Children travel free.", FixedReader(odds)).to_json("hybrid", 0), "when": when}
        for odds, when in ((-6.0, "before"), (6.0, "after"))
    ]
    append_lines(tmp_path / "trial" / JOURNAL, rows)
    show_before_and_after(tmp_path, ["q"])
    cited = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip().startswith("[1]")]
    assert cited == [
        f'[1] fares.md, line 5 ({BESIDE_NOTE}): "Children travel free."',
        '[1] fares.md, line 5: "Children travel free."',
    ]


def test_server_gives_the_mark_and_its_client_reads_it(plan: Plan, hits: tuple[Hit, ...]) -> None:
    answer = ask(plan, hits, "Children travel free.", FixedReader(-6.0))
    step = plan.arms[0]
    model = ServedModel("rag", step, "base")
    result = RequestResult(answer.marked, answer.completion, answer, False, answer.marked)
    extra = x_tunewise_body(result, model, {})
    assert extra["beside"] is True
    identity = ResponseIdentity.new(model, chat=True)
    events = [
        identity.text_chunk(answer.marked),
        identity.last_chunk(result, extra),
        identity.usage_chunk(result),
    ]
    sent = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"

    class Sending(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(sent.encode())

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Sending) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        record = ServerRecord(
            host="127.0.0.1",
            port=server.server_port,
            pid=0,
            started=0.0,
            run="run",
            fingerprint="fingerprint",
        )
        pieces = RunningServer(record).stream(Question("q", ASKED), "rag")
        read = show_streaming(pieces, "rag", Console(file=io.StringIO()))
    assert read.beside
    assert read.citations == answer.citations
    assert printed(read) == printed(answer)


def test_refusal_shows_search_and_nearest_passages(plan: Plan, hits: tuple[Hit, ...]) -> None:
    far = tuple(Hit(hit.chunk, 0.1, 0.2, 0.0, metadata=hit.metadata, expired=hit.expired) for hit in hits)
    for answer in (ask(plan, far, "never asked"), ask(plan, hits, plan.prompts.refusals[0])):
        assert answer.refused
        shown = printed(answer).splitlines()
        assert shown[0] == plan.prompts.refusals[0]
        assert "  searched 3 documents, 1,234 passages; nearest:" in shown
        nearest = next(line for line in shown if line.startswith("    [1] "))
        assert nearest == (
            f"    [1] fares.md, lines 4–5 (2026-03-01), cosine {answer.hits[0].dense:.2f}: "
            '"An adult single costs 14.50 euros. Children travel free."'
        )
        assert shown[-1] == "  (the documents have no answer)"
        reply = answer.reply_json("rag")
        assert [passage["doc"] for passage in reply["nearest"]] == ["fares.md", "old.md", "guide.pdf"]
        assert [passage["rank"] for passage in reply["nearest"]] == [1, 2, 3]
        assert [passage["cosine"] for passage in reply["nearest"]] == [hit.dense for hit in answer.hits]
        assert reply["citations"] == reply["conflicts"] == []


def test_arm_without_retrieval_shows_no_sources(plan: Plan) -> None:
    arm = EvaluateStep(arm="prompting")
    answer = answer_all(
        plan, arm, [Question("q", ASKED)], lambda: Scripted((), "It costs \x1b[1m3\x1b[0m [1]."), None
    )[0]
    assert printed(answer) == "It costs 3.\n  (arm: rag)\n"
    reply = answer.reply_json("prompting")
    assert (reply["searched"], reply["decision"], reply["nearest"], reply["conflicts"]) == (
        None,
        None,
        [],
        [],
    )


def test_nearest_question_and_the_arm_that_answered_are_named() -> None:
    """Of nearest replies the question that was nearest, also of a refusal; of a router which arm answered."""
    asked = Question("q", "When open?")
    shown = []
    for given, arm in ((True, "nearest-reply"), (False, "")):
        nearest = NearestQuestion("When does it open?\x1b[2J", 0.91, given)
        completion = Completion("At six.", 3, 0, 0.001, "stop", nearest=nearest)
        answer = Answer(asked, "At six.", "At six.", (), not given, None, (), completion, arm=arm)
        screen = io.StringIO()
        show_answer(answer, "router", Console(file=screen, force_terminal=False, width=120))
        shown.append(screen.getvalue())
    assert 'nearest question: "When does it open?" (similarity 0.91)' in shown[0]
    assert "(arm: router, answered by nearest-reply)" in shown[0]
    assert "(no reply is near enough)" in shown[1]
    assert "\x1b" not in shown[0]
