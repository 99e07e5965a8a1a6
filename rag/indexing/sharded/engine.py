"""A build by shards: what is left to do becomes tasks for other processes, and the index is joined from their shards.

Two things are shared out. First runs of files are read and cut, each into a document shard. The driver joins their
documents and chunks just as a build in one process reads them, compares the embedder's paths on all texts, and cuts the
texts into the units that such a build would embed; then runs of units are embedded, each into a vector shard. An embedder
may give a text other last bits in another batch (on a GPU it does): the units are the same, so the vectors are the same
bits. Everything after that is the build's own code.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeVar

import numpy as np

from rag.embedding.protocol import Configurable, Encoder
from rag.errors import BadInput, CannotRun
from rag.indexing.build import SHARDS_FOLDER, CutDocuments
from rag.indexing.encoding import CHECKED_PACKAGES
from rag.indexing.sharded.shards import (
    RUN_FILES,
    DamagedShard,
    DocumentShard,
    InputFile,
    ShardStorage,
    document_shard_name,
    input_runs,
    vector_shard_name,
    vectors_from_bytes,
)
from rag.indexing.sharded.worker import EncoderSource, ShardWorker, WorkerSetup, file_fields, raise_problem
from rag.loading.base import Skipped, printable
from rag.loading.reader import file_identity, join_documents, list_files, require_readable
from rag.loading.scan import GENERATED_FOLDERS, IGNORE_FILES, FoundFile
from rag.object_storage import is_url, join_url, list_versions
from rag.settings import IndexSettings
from rag.text.words import count_noun
from rag.types import Chunk, Document, OnEvent

GPU_UNITS = 16
"""Units of a vector shard on a GPU, which embeds one in a fraction of a second; on a CPU a shard holds one."""
_Content = TypeVar("_Content")


class TaskRunner(Protocol):
    """Carries out tasks in other processes, each of which has one :class:`rag.indexing.sharded.worker.ShardWorker`."""

    def run(
        self, tasks: Sequence[dict[str, Any]], setup: WorkerSetup, *, embedding: bool
    ) -> Iterator[dict[str, Any]]:
        """Yield the result of every task, in any order.

        Args:
            tasks: for the workers.
            setup: of the workers.
            embedding: whether the embedder computes, on a GPU where workers have one.
        """


class SameProcess:
    """Carries out the tasks in this process, one after the other: for tests, and to see where a build spends its time."""

    def run(
        self, tasks: Sequence[dict[str, Any]], setup: WorkerSetup, *, embedding: bool
    ) -> Iterator[dict[str, Any]]:
        """Yield the result of every task, in their order."""
        yield from map(ShardWorker(setup), tasks)


@dataclass
class ShardCounts:
    """How many shards a build used, and how many of those were there before."""

    documents: int = 0
    documents_present: int = 0
    vectors: int = 0
    vectors_present: int = 0


class ShardedBuild:
    """The :class:`rag.indexing.build.BuildEngine` that shares the work out; one object for one build."""

    def __init__(
        self, runner: TaskRunner, source: EncoderSource, shards: str = "", run_files: int = RUN_FILES
    ) -> None:
        """Store the parts.

        Args:
            runner: carries out the tasks.
            source: how other processes load the embedder.
            shards: the folder or URL where shards are stored and stay; "" takes a folder in the index, which is removed
                when the index is published.
            run_files: files of a run on average.
        """
        self._runner = runner
        self._source = source
        self._shards = shards
        self._run_files = run_files
        self._settings: dict[str, Any] = {}
        self._storage = ShardStorage(shards if is_url(shards) else str(Path(shards).absolute()))
        self.counts = ShardCounts()
        self._cut = 0

    @property
    def cut(self) -> int:
        """How many texts were longer than the embedder reads."""
        return self._cut

    def read(
        self,
        folder: Path,
        documents: Path | str,
        encoder: Encoder,
        settings: IndexSettings,
        on_event: OnEvent,
    ) -> CutDocuments:
        """Return the documents and their chunks, from shards that are there and from those that the tasks make.

        Raises:
            BadInput: the documents cannot be loaded; as :func:`rag.loading.reader.load_documents`.
            CannotRun: a worker cannot do its part, or its shard does not arrive here.
        """
        self._settings = settings.to_json()
        if not self._shards:
            self._storage = ShardStorage(str((folder / SHARDS_FOLDER).absolute()))
        entries = url_files(documents) if is_url(documents) else _local_files(Path(documents))
        files = [entry for entry in entries if isinstance(entry, InputFile)]
        runs = list(input_runs(files, self._run_files))
        chunking = {"max_tokens": settings.max_tokens, "overlap": settings.overlap}
        facts = {"settings": chunking, "fingerprint": encoder.fingerprint}
        names = [document_shard_name(((file.id, file.identity) for file in run), facts) for run in runs]
        shards = self._present(names, DocumentShard.from_bytes)
        self.counts.documents, self.counts.documents_present = len(runs), len(shards)
        self._tell(on_event, count_noun(len(runs), "run") + " of files", len(shards))
        tasks = [
            {"position": n, "files": list(map(file_fields, runs[n])), "facts": facts}
            for n in range(len(runs))
            if n not in shards
        ]
        for result in self._results(tasks, encoder, embedding=False):
            shards[result["position"]] = self._arrived(result, DocumentShard.from_bytes)
            on_event({"event": "index.shards", "kind": "documents", "done": len(shards), "total": len(runs)})
        return self._joined(documents, entries, [shards[n] for n in range(len(runs))])

    def embed(
        self, encoder: Encoder, units: Sequence[Sequence[str]], on_event: OnEvent
    ) -> Iterator[np.ndarray]:
        """Yield the vectors of each unit, float32 [texts, dimension], once all shards are there."""
        facts: dict[str, Any] = {"fingerprint": encoder.fingerprint}
        size = 1
        if isinstance(encoder, Configurable):
            description = encoder.description()
            facts |= {"path": description["path"], "device": description["device"]}
            facts["versions"] = {name: metadata.version(name) for name in CHECKED_PACKAGES}
            size = 1 if description["device"] == "cpu" else GPU_UNITS
        groups = [units[start : start + size] for start in range(0, len(units), size)]
        names = [vector_shard_name(group, facts) for group in groups]
        texts = [sum(map(len, group)) for group in groups]
        present = self._present(names, lambda data: vectors_from_bytes(data)[1])
        self.counts.vectors, self.counts.vectors_present = len(groups), len(present)
        self._tell(on_event, count_noun(len(groups), "shard") + " of vectors", len(present))
        tasks = [
            {"position": n, "units": list(map(list, groups[n])), "name": names[n]}
            for n in range(len(groups))
            if n not in present
        ]
        done = sum(texts[n] for n in present)
        for result in self._results(tasks, encoder, embedding=True):
            done += texts[result["position"]]
            on_event({"event": "embed.batch", "done": done, "total": sum(texts)})
        for group, name in zip(groups, names, strict=True):
            vectors, cut = self._arrived({"name": name, "host": "its worker"}, vectors_from_bytes)
            self._cut += cut
            yield from np.split(vectors, np.cumsum([len(unit) for unit in group])[:-1])

    def remarks(self) -> list[str]:
        """Return how many shards were made, and how many were there."""
        counts = self.counts
        return [
            f"{count_noun(counts.documents, 'run')} of files, {counts.documents_present} from before; "
            f"{count_noun(counts.vectors, 'shard')} of vectors, {counts.vectors_present} from before"
        ]

    def _tell(self, on_event: OnEvent, shards: str, present: int) -> None:
        """Report how many shards a build needs, and how many of them are there."""
        before = f", {present} of them from before" if present else ""
        on_event({"event": "index.engine", "reason": f"{shards}{before}"})

    def _present(self, names: Sequence[str], parse: Callable[[bytes], _Content]) -> dict[int, _Content]:
        """Return the content of the shards that are there and whole, by position; damaged ones are removed.

        Args:
            names: of the shards, by position.
            parse: reads a shard; DamagedShard for one that is not whole.
        """
        there = self._storage.names()
        present: dict[int, _Content] = {}
        for n, name in enumerate(names):
            if name not in there:
                continue
            try:
                present[n] = parse(self._storage.read(name))
            except DamagedShard:
                self._storage.remove([name])
        return present

    def _results(
        self, tasks: Sequence[dict[str, Any]], encoder: Encoder, *, embedding: bool
    ) -> Iterator[dict[str, Any]]:
        """Yield the results of tasks; a problem that one names is raised."""
        if not tasks:
            return
        path = str(encoder.description()["path"]) if isinstance(encoder, Configurable) else ""
        setup = WorkerSetup(self._storage.location, self._settings, self._source, encoder.fingerprint, path)
        if not embedding and self._source.plain_tokens:
            setup = replace(setup, tokenizer=encoder.tokenizer.to_str(), max_tokens=encoder.max_tokens)
        for result in self._runner.run(tasks, setup, embedding=embedding):
            raise_problem(result)
            yield result

    def _arrived(self, result: Mapping[str, Any], parse: Callable[[bytes], _Content]) -> _Content:
        """Return a shard that a worker has stored; CannotRun when it is not here."""
        try:
            return parse(self._storage.read(result["name"]))
        except (BadInput, DamagedShard) as error:
            raise CannotRun(
                f"the shard {result['name']} was written by {result['host']} and is not in "
                f"{self._storage.location}: {error}",
                "give --shards a URL, or a folder that every machine sees",
            ) from error

    def _joined(
        self,
        documents: Path | str,
        entries: Sequence[InputFile | Skipped],
        shards: Sequence[DocumentShard],
    ) -> CutDocuments:
        """Join the shards in the order of the files, as if one process had read them."""
        items: list[Document | Skipped] = [entry for entry in entries if isinstance(entry, Skipped)]
        items += [item for shard in shards for item in shard.files.items]
        root = None if is_url(documents) else Path(documents)
        if root is not None and not root.is_dir():
            require_readable(root, items)
        loaded = join_documents(documents, items, [shard.files for shard in shards])
        return CutDocuments(loaded, _JoinedChunks(shards), root)


class _JoinedChunks:
    """The chunks of all shards, looked up instead of cut; of documents with one id the first counts."""

    def __init__(self, shards: Sequence[DocumentShard]) -> None:
        self._chunks: dict[str, Sequence[Chunk]] = {}
        self._prefixes: dict[tuple[str, str], str] = {}
        for shard in shards:
            documents = (item for item in shard.files.items if isinstance(item, Document))
            for document, chunks in zip(documents, shard.chunks, strict=True):
                self._chunks.setdefault(document.id, chunks)
            self._prefixes.update(shard.prefixes)

    def chunks(self, document: Document) -> list[Chunk]:
        """Return the document's chunks in order, with ids still 0; they are given out once, to be held in one place."""
        return list(self._chunks.pop(document.id))

    def embedded_text(self, chunk: Chunk) -> str:
        """Return the text that is embedded and searched for a chunk."""
        return self._prefixes[chunk.title, chunk.heading] + chunk.text


def _local_files(path: Path) -> list[InputFile | Skipped]:
    """Return what a documents path names, each file with the hash of its bytes."""
    entries: list[InputFile | Skipped] = []
    for entry in list_files(path):
        if isinstance(entry, FoundFile):
            size = 0
            with suppress(OSError):
                size = entry.path.stat().st_size
            entries.append(InputFile(entry.id, os.fspath(entry.path), size, file_identity(entry)))
        else:
            entries.append(entry)
    return entries


def url_files(url: Path | str) -> list[InputFile | Skipped]:
    """Return the objects below a URL in the order of a folder's files, or the one that it names.

    Hidden names and folders of generated files are skipped as in a folder. Ignore files are not applied there: where there
    is one, the user must decide.

    Raises:
        BadInput: there is no object, or an ignore file.
    """
    versions = list_versions(str(url))
    if not versions:
        raise BadInput(f"there is no object at {url} or below", "check the URL and AWS_ENDPOINT_URL")
    entries: list[InputFile | Skipped] = []
    for name in sorted(versions, key=lambda name: [os.fsencode(part) for part in name.split("/")]):
        location = join_url(str(url), name) if name else str(url)
        id = printable(name or PurePosixPath(str(url)).name)
        parts = PurePosixPath(id).parts
        if parts[-1] in IGNORE_FILES:
            raise BadInput(
                f"{location} would be applied in a folder, and is not behind a URL",
                "remove it there, and what it leaves out",
            )
        if any(part.startswith(".") for part in parts):
            entries.append(Skipped(id, "hidden"))
        elif GENERATED_FOLDERS.intersection(parts[:-1]):
            entries.append(Skipped(id, "a folder of generated files"))
        else:
            entries.append(InputFile(id, location, *versions[name]))
    return entries
