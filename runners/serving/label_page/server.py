"""A page on which one person labels answers: one HTML file, and the requests that it sends.

`serve_page` listens on the loopback interface with a token of its own until the person ends it. Every change names the
revision of the labels that its page showed: where another tab has changed them since, it is refused with what they are now.
"""

from __future__ import annotations

import secrets
import shlex
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import FastAPI, Query
from fastapi.responses import HTMLResponse
from pydantic import ConfigDict, Field

from rag.errors import UsageProblem
from rag.text.words import count_noun
from runners.labels.records import (
    FORM_DOES_NOT_COUNT,
    GRADE_MEANING,
    Better,
    Grade,
    LabelPassage,
    LabelProgress,
    LabelTask,
    Side,
)
from runners.labels.session import LabelSession
from runners.serving.http.app import add_error_handlers, page_headers
from runners.serving.http.auth import AccessToken, is_loopback
from runners.serving.http.errors import ApiError
from runners.serving.http.middleware import AccessRules, AsgiApp, LimitsMiddleware
from runners.serving.http.request_models import OpenModel
from runners.serving.http.server import bind_address, run_until_signal, server_config
from runners.serving.http.service import ServerLimits

MAX_GOLD_CHARS = 20_000
"""Longest gold answer; the page's text field has the same limit."""
MAX_KEY_CHARS = 1_000
LIMITS = ServerLimits(body_bytes=1 << 18)
DRAIN_SECONDS = 5
"""Seconds that open requests are given when the page is ended."""


class _Change(OpenModel):
    """What every change names: the task, and the revision of the labels that the page showed."""

    model_config = ConfigDict(extra="forbid")
    key: str = Field(max_length=MAX_KEY_CHARS)
    revision: int


class _GradeChange(_Change):
    kind: Literal["grade"]
    side: Side
    grade: Grade


class _PreferChange(_Change):
    kind: Literal["prefer"]
    better: Better


class _AnswerableChange(_Change):
    kind: Literal["answerable"]
    answerable: bool


class _GoldChange(_Change):
    kind: Literal["gold"]
    text: str = Field(max_length=MAX_GOLD_CHARS)


class _SentenceChange(_Change):
    kind: Literal["sentence"]
    passage: int = Field(ge=0)
    sentence: int = Field(ge=0)


class _SkipChange(_Change):
    kind: Literal["skip"]


LabelChange = Annotated[
    _GradeChange | _PreferChange | _AnswerableChange | _GoldChange | _SentenceChange | _SkipChange,
    Field(discriminator="kind"),
]


class UndoChange(OpenModel):
    """What an undo names."""

    model_config = ConfigDict(extra="forbid")
    revision: int
    """The revision of the labels that the page showed."""


class LabelRequests:
    """Carries out the requests of one person's pages, one at a time.

    Args:
        session: the person's session.
    """

    def __init__(self, session: LabelSession) -> None:
        """Start at revision 0."""
        self._session = session
        self._lock = threading.Lock()
        self._revision = 0

    @property
    def revision(self) -> int:
        """How many changes were stored since the page was started."""
        return self._revision

    def state(self, key: str | None = None) -> dict[str, Any]:
        """Return the task of a key, by default the next of the order, and the progress."""
        with self._lock:
            return self._state(self._session.task(key))

    def change(self, change: LabelChange) -> dict[str, Any]:
        """Store one label and return the state with its task; after a skip, with the next one.

        Raises:
            ApiError: other labels were stored since the page was drawn (409), or there is no such sentence (400).
        """
        with self._lock:
            if change.revision != self._revision:
                raise self._stale(self._session.task(change.key))
            task = self._store(change)
            self._revision += 1
            return self._state(task)

    def undo(self, revision: int) -> dict[str, Any]:
        """Take the last label back and return the state with its task.

        Raises:
            ApiError: other labels were stored since the page was drawn (409), or there is none to take back (400).
        """
        with self._lock:
            if revision != self._revision:
                raise self._stale(self._session.task())
            task = self._session.undo()
            if task is None:
                raise ApiError(400, "there is no label of yours to take back", code="nothing_to_undo")
            self._revision += 1
            return self._state(task)

    def ask_all_pairs(self) -> dict[str, Any]:
        """Ask about all pairs of arms from now on, and return the state with the next task."""
        with self._lock:
            self._session.ask_all_pairs()
            return self._state(self._session.task())

    def last_words(self) -> dict[str, Any]:
        """Return what the page says when it is ended."""
        with self._lock:
            progress = self._session.progress()
            run = self._session.run.folder.path
        return {
            "text": _counts(progress),
            "results": list(progress.results),
            "next": shlex.join(["tunewise", "run", str(run), "--resume"]),
        }

    def _store(self, change: LabelChange) -> LabelTask | None:
        session = self._session
        match change:
            case _GradeChange():
                return session.grade(change.key, change.side, change.grade)
            case _PreferChange():
                return session.prefer(change.key, change.better)
            case _AnswerableChange():
                return session.set_answerable(change.key, change.answerable)
            case _GoldChange():
                return session.set_gold(change.key, change.text)
            case _SentenceChange():
                start, end = self._sentence(change)
                return session.mark_sentence(change.key, change.passage, start, end)
            case _SkipChange():
                session.skip(change.key)
                return session.task()

    def _sentence(self, change: _SentenceChange) -> tuple[int, int]:
        task = self._session.task(change.key)
        passages = task.passages if task else ()
        if change.passage < len(passages) and change.sentence < len(passages[change.passage].sentences):
            return passages[change.passage].sentences[change.sentence]
        raise ApiError(400, "there is no such sentence", param="sentence", code="no_sentence")

    def _state(self, task: LabelTask | None) -> dict[str, Any]:
        progress = self._session.progress()
        return {
            "revision": self._revision,
            "task": None if task is None else _task_body(task),
            "progress": _progress_body(progress),
        }

    def _stale(self, task: LabelTask | None) -> ApiError:
        message = "the labels have changed since this page was drawn"
        return ApiError(409, message, code="stale", extra={"state": self._state(task)})


def label_app(requests: LabelRequests, token: str, on_done: Callable[[], None]) -> AsgiApp:
    """Build the application: the page, which holds nothing of the run, and requests that need the token.

    Args:
        requests: what carries them out.
        token: what every request but that for the page must bring.
        on_done: called when the person ends the page.
    """
    app = FastAPI(title="tunewise label", openapi_url=None)
    text = Path(__file__).with_name("label.html").read_text("utf-8")
    headers = page_headers(text)

    @app.get("/", response_class=HTMLResponse)
    async def page() -> HTMLResponse:
        return HTMLResponse(text, headers=headers)

    @app.get("/revision")
    async def revision() -> dict[str, Any]:
        return {"revision": requests.revision}

    # Without async, these run in threads: each waits for the disk.
    @app.get("/task")
    def task(key: Annotated[str | None, Query(max_length=MAX_KEY_CHARS)] = None) -> dict[str, Any]:
        return requests.state(key)

    @app.post("/labels")
    def labels(body: LabelChange) -> dict[str, Any]:
        return requests.change(body)

    @app.post("/undo")
    def undo(body: UndoChange) -> dict[str, Any]:
        return requests.undo(body.revision)

    @app.post("/all-pairs")
    def all_pairs() -> dict[str, Any]:
        return requests.ask_all_pairs()

    @app.post("/done")
    def done() -> dict[str, Any]:
        words = requests.last_words()
        on_done()
        return words

    add_error_handlers(app)
    return LimitsMiddleware(app, AccessRules(LIMITS, AccessToken(token), open_paths=("/",)))


class LabelServer(uvicorn.Server):
    """The page's server.

    Args:
        session: the person's session.
        host: an address of the loopback interface.
        port: 0 lets the system choose.
        on_ready: called once the page can be opened, with its URL, whose fragment is the token.

    Raises:
        UsageProblem: other machines could reach the address.
        CannotRun: the address is in use.
    """

    def __init__(
        self,
        session: LabelSession,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        on_ready: Callable[[str], None],
    ) -> None:
        """Bind the address; `run` listens."""
        if not is_loopback(host):
            raise UsageProblem(
                f"{host} can be reached from other machines, and the page is for this one alone",
                "from elsewhere use `ssh -L PORT:127.0.0.1:PORT` with --port PORT, or --terminal",
            )
        token = secrets.token_urlsafe(32)
        app = label_app(LabelRequests(session), token, self._end)
        super().__init__(server_config(app, host, port, DRAIN_SECONDS))
        self.listening = bind_address(self.config)
        name = f"[{host}]" if ":" in host else host
        # A fragment is not part of any request, so no log has it.
        self._url = f"http://{name}:{self.listening.getsockname()[1]}/#{token}"
        self._on_ready = on_ready

    async def startup(self, sockets: Any = None) -> None:
        """Listen, then say where the page is."""
        await super().startup(sockets)
        self._on_ready(self._url)

    def _end(self) -> None:
        self.should_exit = True


def serve_page(
    session: LabelSession,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    on_ready: Callable[[str], None],
) -> None:
    """Let a person label on a page until the person ends it there, or a signal does; see :class:`LabelServer`."""
    server = LabelServer(session, host=host, port=port, on_ready=on_ready)
    run_until_signal(server, server.listening)


def _task_body(task: LabelTask) -> dict[str, Any]:
    """Return what the page shows of a task: its answers by their places, and nothing of their arms."""
    return {
        "key": task.key,
        "question": task.question,
        "history": [{"role": turn["role"], "text": turn["content"]} for turn in task.history],
        "instructions": task.instructions,
        "gold": task.gold,
        "gold_edited": task.gold_edited,
        "passages": [_passage_body(passage, task) for passage in task.passages],
        "answers": list(task.answers),
        "grades": list(task.grades),
        "graded_before": list(task.graded_before),
        "cut": list(task.cut),
        "better": task.better,
        "answerable": task.answerable,
        "by_file": task.by_file,
        "assumed": task.assumed,
        "consequence": task.consequence,
        "skipped": task.skipped,
        "done": task.done,
        "page": task.page,
        "notice": task.notice,
        "note": task.note,
    }


def _passage_body(passage: LabelPassage, task: LabelTask) -> dict[str, Any]:
    """Return a passage cut at its sentences: JavaScript counts characters in another way than Python."""
    marked = task.sentence
    pieces: list[dict[str, Any]] = []
    position = 0
    for number, (start, end) in enumerate(passage.sentences):
        if position < start:
            pieces.append({"text": passage.text[position:start], "sentence": None, "marked": False})
        place = (passage.doc_id, passage.start + start, passage.start + end)
        is_marked = marked is not None and place == (marked.doc_id, marked.start, marked.end)
        piece = {"text": passage.text[start:end], "sentence": number, "marked": is_marked}
        pieces.append(piece | {"gold": number in passage.gold})
        position = end
    if position < len(passage.text):
        pieces.append({"text": passage.text[position:], "sentence": None, "marked": False})
    origin = "" if passage.found else " (not among the passages found)"
    return {"title": f"{passage.title or passage.doc_id}{origin}", "pieces": pieces}


def _counts(progress: LabelProgress) -> str:
    """Return how much this person has labelled."""
    skipped = f", {count_noun(progress.skipped, 'question')} skipped" if progress.skipped else ""
    return f"{progress.by}: {count_noun(progress.pages, 'page')} labelled{skipped}"


def _progress_body(progress: LabelProgress) -> dict[str, Any]:
    """Return what the page shows beside a task: neither how far people agree nor which arm is better, which bias graders."""
    return {
        "counts": _counts(progress),
        "position": progress.position,
        "finished": progress.finished,
        "more": progress.more,
        "meanings": dict(GRADE_MEANING),
        "form": f"{FORM_DOES_NOT_COUNT} here; which is better may.",
        "notes": list(progress.notes),
    }
