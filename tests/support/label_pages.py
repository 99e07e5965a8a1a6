"""A label page of a copy of a finished run, served on a free port of the loopback interface."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from runners.labels.labels import RunLabels, read_labels
from runners.labels.session import LabelSession
from runners.serving.label_page.server import LabelServer
from tests.support.limits import HANG_S

PERSON = "anna"
PLANTED = "<img src=x onerror=window.ran=1><script>window.ran=2</script>"
"""In every answer; a page that took it for HTML would load and run it."""
NEXT_STEP = "tunewise report runs/piers"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelPageServer:
    """A running label page: its address with the token, its run, and its server."""

    url: str
    run: Path
    server: LabelServer
    thread: threading.Thread

    @property
    def address(self) -> str:
        """The address without the token."""
        return self.url.partition("/#")[0]

    @property
    def token(self) -> str:
        """What requests must bring."""
        return self.url.partition("#")[2]

    @property
    def labels(self) -> RunLabels:
        """What is on the disk."""
        return read_labels(self.run)

    def client(self) -> httpx.Client:
        """Return a client that brings the token."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.address, timeout=HANG_S, headers=headers)

    def stop(self) -> None:
        """End the server, as its process would."""
        self.server.should_exit = True
        self.thread.join(HANG_S)


def planted_run(finished: Path, folder: Path) -> tuple[Path, Path]:
    """Copy a finished run and give it other answers: one for each arm, but for one question where all gave the same.

    Args:
        finished: the run, with its questions beside it.
        folder: where the copy goes.

    Returns:
        The copy, and its questions.
    """
    run = folder / "run"
    shutil.copytree(finished, run)
    path = run / "trial" / "answers.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    arms = sorted({row["arm"] for row in rows})
    same = min(row["id"] for row in rows)
    for row in rows:
        hour = 6 if row["id"] == same else 7 + arms.index(row["arm"])
        row["answer"] = row["marked"] = f"From {hour} o'clock. {PLANTED}"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return finished.parent / "questions.jsonl", run


@contextmanager
def label_page_of(questions: Path, run: Path) -> Iterator[LabelPageServer]:
    """Serve the label page of a run in a thread, and stop it."""
    ready = threading.Event()
    urls: list[str] = []

    def on_ready(url: str) -> None:
        urls.append(url)
        ready.set()

    with LabelSession.open(questions, run, PERSON) as session:
        server = LabelServer(session, on_ready=on_ready, next_steps=(NEXT_STEP,))
        thread = threading.Thread(target=server.run, args=([server.listening],), daemon=True)
        thread.start()
        assert ready.wait(HANG_S)
        page = LabelPageServer(url=urls[0], run=run, server=server, thread=thread)
        yield page
        page.stop()
