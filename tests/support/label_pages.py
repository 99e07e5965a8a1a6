"""A label page of a planted run, served on a free port of the loopback interface."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from runners.labels.labels import RunLabels, read_labels
from runners.labels.session import LabelSession
from runners.serving.label_page.server import LabelServer
from tests.support.labelled_run import PlantedRun, plant_run, question_rows
from tests.support.limits import HANG_S

PERSON = "anna"
PLANTED = "<img src=x onerror=window.ran=1><script>window.ran=2</script>"
"""In every answer; a page that took it for HTML would load and run it."""
QUESTIONS = 8


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


def run_to_label(folder: Path, encoder: Any) -> PlantedRun:
    """Write a finished run of two arms, with documents whose text JavaScript counts in another way than Python.

    Args:
        folder: gets the run, its questions and its documents.
        encoder: embeds the documents.
    """
    documents = folder / "documents"
    documents.mkdir(parents=True)
    for n in range(QUESTIONS):
        text = f"Pier {n} 🚢 has {n} berths.  It opens at seven.\n\nTickets are sold there."
        (documents / f"pier{n:02}.md").write_text(text, "utf-8")
    arms: dict[str, Callable[[int], str]] = {
        "hybrid": lambda n: f"It has {n} berths. {PLANTED}",
        "rag": lambda n: f"It has {n}00 berths. {PLANTED}",
    }
    return plant_run(folder, question_rows(QUESTIONS), arms, documents=documents, encoder=encoder)


@contextmanager
def label_page_of(planted: PlantedRun) -> Iterator[LabelPageServer]:
    """Serve the label page of a run in a thread, and stop it."""
    ready = threading.Event()
    urls: list[str] = []

    def on_ready(url: str) -> None:
        urls.append(url)
        ready.set()

    with LabelSession.open(planted.questions, planted.run, PERSON) as session:
        server = LabelServer(session, on_ready=on_ready)
        thread = threading.Thread(target=server.run, args=([server.listening],), daemon=True)
        thread.start()
        assert ready.wait(HANG_S)
        page = LabelPageServer(url=urls[0], run=planted.run, server=server, thread=thread)
        yield page
        page.stop()
