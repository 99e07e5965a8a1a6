"""A few documents, and what looks things up in them with a scripted model behind a fake endpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rag.grounding.refusal import RefusalThreshold
from rag.index import Index
from runners.arms.retriever import Retriever
from runners.inference.http_client import Backoff, RequestLimits
from runners.inference.remote import RemoteGenerator
from runners.inference.servers.spending import TokenPrice
from runners.lookup.documents import LookupDocuments
from runners.lookup.generator import LookupGenerator, LookupSetting
from runners.lookup.journal import LookupJournal
from runners.lookup.tool_models import EndpointCalls
from runners.models.resolve import Model
from runners.plan.data import Prompts
from runners.plan.steps import IndexStep, LookupLimits

PIERS = {"amber.md": ("Amber", 20), "birch.md": ("Birch", 31), "notes/cedar.md": ("Cedar", 42)}
NEVER = RefusalThreshold(weights={}, bias=1.0, how="default")
REFUSAL = "I could not find that in our documents."


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Three documents, one in a folder of its own."""
    folder = tmp_path / "documents"
    for name, (pier, berths) in PIERS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        text = f"# {pier}\n\nThe {pier} Pier has {berths} berths.\nIt closes at nine.\n"
        (folder / name).write_text(text, "utf-8")
    return folder


@pytest.fixture
def make_search(documents: Path, words: Any, tmp_path: Path) -> Callable[..., Callable[[], Retriever]]:
    """Make searches of an index of the documents that shows one passage, and says by a threshold when to refuse."""

    def make(threshold: RefusalThreshold = NEVER) -> Callable[[], Retriever]:
        folder = tmp_path / "index"
        if not folder.exists():
            Index.build(folder, documents, words)
        retriever = Retriever(Index.open(folder, words), IndexStep(k=1), threshold, words.count_tokens)
        return lambda: retriever

    return make


@pytest.fixture
def looking_up(documents: Path, server: Any) -> Iterator[Callable[..., LookupGenerator]]:
    """Make generators that look things up in the documents with the model of the fake endpoint."""
    opened: list[RemoteGenerator] = []

    def make(
        journal: Path | None = None,
        price: TokenPrice | None = None,
        key: str = "",
        search: Any = None,
        on_note: Any = None,
        **limits: Any,
    ) -> LookupGenerator:
        backoff = Backoff(first=0.01, longest=0.02, tries=3)
        remote = RemoteGenerator(
            server.url, "tern-2", RequestLimits(backoff=backoff), key=key, on_note=on_note
        )
        opened.append(remote)
        setting = LookupSetting(
            documents=LookupDocuments(documents),
            limits=LookupLimits(**limits),
            prompts=Prompts(refusals=(REFUSAL,)),
            model="tern-2",
            name="tern-2",
            price=price,
            search=search,
        )
        kept = LookupJournal(journal) if journal else None
        return LookupGenerator(EndpointCalls(remote), setting, kept, on_note)

    yield make
    for remote in opened:
        remote.close()


@pytest.fixture
def with_template(tiny: Model, tmp_path: Path) -> Callable[[str], Path]:
    """Copy the tiny model with another chat template."""

    def make(template: str) -> Path:
        folder = tmp_path / f"model{len(list(tmp_path.iterdir()))}"
        shutil.copytree(tiny.folder, folder)
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
        (folder / "tokenizer_config.json").write_text(
            json.dumps({**config, "chat_template": template}), "utf-8"
        )
        return folder

    return make
