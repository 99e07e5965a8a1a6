"""Ask a server of this machine that has a run loaded: the answers are those of the local path.

:func:`usable_server` finds a server that would answer as this process would, or says why none is asked.
:meth:`RunningServer.stream` asks it over HTTP and rebuilds the :class:`~runners.arms.answer.Answer`. Only ``http.client``
is used: it reads no proxy and no key from the environment, follows no redirect, and loads in milliseconds.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.grounding.conflicts import Conflict, ConflictSide
from rag.grounding.refusal import RefusalDecision, RefusalSignals
from rag.types import Chunk, Citation, Hit
from rag.version import __version__
from runners.arms.answer import Answer
from runners.arms.retriever import Retrieved
from runners.data.questions import Question
from runners.inference.types import Completion, Lookups, labels_and_nearest
from runners.plan.gate import Check
from runners.runs.opened import OpenRun
from runners.serving.http.auth import token_text
from runners.serving.server_record import ServerRecord, find_servers, run_fingerprint

HEALTH_SECONDS = 5.0
"""Time for /health: a server that takes longer is busy with something else, and is not waited for."""
SILENCE_SECONDS = 60.0
"""Longest silence in an answer; a server that works sends a sign of life every 15 seconds."""
BUSY_SECONDS = 30.0
"""Time that a server which says that it is busy is waited for; loading the models here takes about as long."""
MAX_EVENT_BYTES = 1 << 24
"""Longest line of a response."""


class ServerLost(Exception):
    """The server did not give this answer; the text says why, and the answer is to be made in this process."""


class RunningServer:
    """A server that has been proved to have a run loaded as it is on the disk."""

    def __init__(self, record: ServerRecord, note: Callable[[str], None] = lambda text: None) -> None:
        """Wrap the record of a server.

        Args:
            record: its record, already checked against the process.
            note: called with a line when a busy server is waited for.

        Raises:
            BadInput: the file with its token cannot be read.
        """
        self.record = record
        self._note = note
        self._token = token_text(Path(record.token_file)) if record.token_file else ""

    def health(self) -> dict[str, Any]:
        """Return the body of /health; :class:`ServerLost` when there is none."""
        try:
            with closing(self._connect(HEALTH_SECONDS)) as connection:
                connection.request("GET", "/health", headers=self._headers())
                body = json.loads(connection.getresponse().read(MAX_EVENT_BYTES))
        except TimeoutError:
            raise ServerLost(f"it does not answer within {HEALTH_SECONDS:.0f} s") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ServerLost(f"it does not answer ({type(error).__name__})") from None
        return body if isinstance(body, dict) else {}

    def stream(
        self, question: Question, arm: str, check: Check | None = None
    ) -> Generator[str, None, Answer]:
        """Yield the pieces of an answer as the server sends them; return the answer.

        A busy server is waited for, at most `BUSY_SECONDS`. Closing the generator ends the request on the server.

        Args:
            question: the question with the turns before it.
            arm: the arm that answers.
            check: what becomes of an answer without support; None for what the trial settled.

        Raises:
            ServerLost: the server refused the request, broke off, or cut the answer.
        """
        body = {
            "model": arm,
            "messages": [*question.history, {"role": "user", "content": question.question}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "check": check,
        }
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            with closing(self._connect(SILENCE_SECONDS)) as connection:
                try:
                    response = self._post(connection, body)
                    if response.status == 200:
                        return (yield from _read_answer(response, question, arm))
                    refusal = _refusal(response)
                except (OSError, http.client.HTTPException) as error:
                    raise ServerLost(f"the connection broke ({type(error).__name__})") from None
            wait = response.getheader("Retry-After", "")
            if not wait.isdecimal() or time.monotonic() + int(wait) > deadline:
                raise ServerLost(refusal)
            self._note(f"the server at {self.record.address} is busy, asking again in {wait} s: {refusal}")
            time.sleep(int(wait))

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.record.host, self.record.port, timeout=timeout)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def _post(self, connection: http.client.HTTPConnection, body: Any) -> http.client.HTTPResponse:
        data = json.dumps(body).encode("utf-8")
        headers = {"Content-Type": "application/json", **self._headers()}
        connection.request("POST", "/v1/chat/completions", data, headers)
        return connection.getresponse()


def usable_server(session: OpenRun, note: Callable[[str], None], model: bool = False) -> RunningServer | None:
    """Return a server that answers as this process would; None without one.

    Such a server is of this version, has loaded the run as it is on the disk now, generates in the same place, and
    gives answers as long as the plan's. Why a running server is not asked is passed to ``note``.

    Args:
        session: the run, of which nothing but the plan needs to be read, with the servers that generate, if any.
        note: called with a line for the user.
        model: whether another folder of the base model is to be used, which no server is known to have.
    """
    run = session.folder.path
    records, notes = find_servers(run)
    for text in notes:
        note(text)
    fingerprint = run_fingerprint(run, session.plan) if records else ""
    for record in records:
        server: RunningServer | None = None
        try:
            reason = "--model names the model" if model else ""
            reason = reason or _difference(record, session, fingerprint)
            if not reason:
                server = RunningServer(record, note)
                reason = _health_difference(server.health(), fingerprint)
        except (ServerLost, BadInput) as problem:
            reason = str(problem)
        if not reason and server is not None:
            return server
        note(f"the server at {record.address} is not asked: {reason}")
    return None


def _difference(record: ServerRecord, session: OpenRun, fingerprint: str) -> str:
    """Return why a server would not answer as this process does; "" when it would."""
    if record.version != __version__:
        return f"it is tunewise {record.version}, this is {__version__}"
    if record.fingerprint != fingerprint:
        return "the run has changed since the server was started; start it again to use it"
    if record.backend != session.backend.entries:
        return "its answers are generated elsewhere (--backend)"
    if record.max_tokens < session.plan.max_new_tokens:
        longest = session.plan.max_new_tokens
        return f"it cuts answers at {record.max_tokens} tokens (--max-tokens), the plan at {longest}"
    return ""


def _health_difference(health: Mapping[str, Any], fingerprint: str) -> str:
    """Return why a server's /health does not allow asking it; "" when it does."""
    if health.get("run") != fingerprint or health.get("version") != __version__:
        return "it does not serve this run"
    if health.get("status") not in ("ok", "degraded"):
        return f"its status is {health.get('status')!r}"
    return "it answers from an older state of the index" if health.get("stale") else ""


def _refusal(response: http.client.HTTPResponse) -> str:
    """Return the message of an error's body, with its status."""
    try:
        message = str(json.loads(response.read(MAX_EVENT_BYTES))["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = response.reason
    return f"{message} (HTTP {response.status})"


def _read_answer(
    response: http.client.HTTPResponse, question: Question, arm: str
) -> Generator[str, None, Answer]:
    """Yield the pieces of a streamed answer; return the answer when the stream has ended as it should."""
    text, finish = "", ""
    extra: dict[str, Any] | None = None
    usage: dict[str, Any] = {}
    for event in _events(response):
        if "error" in event:
            raise ServerLost(str(event["error"].get("message", "an error")))
        usage = event.get("usage") or usage
        extra = event.get("x_tunewise", extra)
        for choice in event.get("choices", ()):
            finish = choice.get("finish_reason") or finish
            if piece := choice.get("delta", {}).get("content"):
                text += piece
                yield piece
    if extra is None or not finish:
        raise ServerLost("the answer broke off")
    if "cut" in extra:
        raise ServerLost(str(extra["cut"]))
    try:
        return _answer_of(extra, usage, text, finish, question, arm)
    except (KeyError, TypeError, ValueError) as error:
        raise ServerLost(f"its answer is not of the expected form ({error!r})") from None


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a stream of server-sent events; ServerLost when it ends without ``[DONE]``."""
    while line := response.readline(MAX_EVENT_BYTES):
        if not line.startswith(b"data: "):
            continue  # a comment that only shows life, or the end of an event
        data = line.removeprefix(b"data: ").strip()
        if data == b"[DONE]":
            return
        try:
            event = json.loads(data)
        except ValueError:
            raise ServerLost("an event is no JSON") from None
        yield event
    raise ServerLost("the answer broke off")


def _answer_of(
    extra: Mapping[str, Any],
    usage: Mapping[str, Any],
    text: str,
    finish: str,
    question: Question,
    arm: str,
) -> Answer:
    """Rebuild an answer from a response; of the passages only those are known that `ask` prints."""
    marked = str(extra.get("answer", text))
    details = usage.get("completion_tokens_details") or {}
    labels, nearest = labels_and_nearest(extra)
    completion = Completion(
        text=marked,
        prompt_tokens=int(usage["prompt_tokens"]),
        completion_tokens=int(usage["completion_tokens"]),
        seconds=float(extra["seconds"]),
        finish=finish,
        estimated=bool(extra.get("tokens_estimated", False)),
        reasoning_tokens=int(details.get("reasoning_tokens", 0)),
        reasoning_cut=bool(extra.get("reasoning_cut", False)),
        labels=labels,
        nearest=nearest,
        lookups=Lookups.from_json(extra),
    )
    retrieved = None
    if (decision := extra["decision"]) is not None:
        retrieved = Retrieved(
            tuple(_hit(row) for row in extra["nearest"]),
            "",
            RefusalDecision(
                bool(decision["refuse"]), float(decision["score"]), RefusalSignals(**decision["signals"])
            ),
            tuple(extra["notes"]),
            dict(extra["searched"] or {}),
        )
    answer = Answer(
        question=question,
        text=str(extra.get("unmarked", marked)),
        marked=marked,
        citations=tuple(Citation(**row) for row in extra["citations"]),
        refused=bool(extra["refused"]),
        found=retrieved,
        chat=(),
        completion=completion,
        conflicts=tuple(_conflict(row) for row in extra["conflicts"]),
        arm=str(extra.get("answered_by", arm)),
    )
    return replace(answer, withheld=answer) if extra["uncertain"] else answer


def _hit(row: Mapping[str, Any]) -> Hit:
    places = {name: row[name] for name in ("page", "line_start", "line_end")}
    chunk = Chunk(0, row["doc"], row["title"], 0, row["text"], 0, 0, **places)
    dates = {"date": row["date"], "valid_until": row.get("valid_until", "")}
    return Hit(
        chunk, row["score"], row["cosine"], 0.0, metadata=dates, expired=bool(row.get("expired", False))
    )


def _conflict(row: Mapping[str, Any]) -> Conflict:
    first, second = (ConflictSide(**side) for side in row["sides"])
    return Conflict(row["about"], (first, second), row["newer"])
