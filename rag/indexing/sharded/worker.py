"""What a process of a sharded build does: read and cut a run of files, or embed units of texts, and store the shard.

A task is an object of JSON values and so is its result. A problem that the user can mend comes back as part of the result,
with the name of the machine, because an exception would reach the user as a page of a scheduler's traceback.
"""

from __future__ import annotations

import json
import platform
import tempfile
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from rag.embedding.protocol import Configurable, Encoder
from rag.errors import BadInput, CannotRun, Problem, UsageProblem
from rag.indexing.chunking import Chunker
from rag.indexing.encoding import configured_encoder
from rag.indexing.sharded.shards import (
    DocumentShard,
    InputFile,
    ShardStorage,
    document_shard_name,
    vectors_to_bytes,
)
from rag.loading.reader import UNREADABLE, read_files
from rag.loading.scan import FoundFile
from rag.object_storage import download_file, is_url
from rag.settings import IndexSettings
from rag.version import __version__

if TYPE_CHECKING:
    from rag.embedding.embedder import Embedder

_PROBLEMS: dict[str, type[Problem]] = {kind.__name__: kind for kind in (BadInput, CannotRun, UsageProblem)}


class EncoderSource(Protocol):
    """How another process loads the embedder; its fields are sent there."""

    plain_tokens: ClassVar[bool]
    """Whether a text has as many tokens as its tokenizer gives ids without special tokens: what cuts documents then needs
    no model, and a process starts in a second instead of five."""

    def load(self) -> Encoder:
        """Return the embedder, without an index's settings."""


@dataclass(frozen=True, slots=True)
class EmbedderFolderSource:
    """An embedder in a folder that every machine sees under the same path."""

    folder: str
    name: str = ""
    dtype: str = "float32"
    device: str = "cpu"
    plain_tokens: ClassVar[bool] = True

    @classmethod
    def of(cls, embedder: Embedder) -> EmbedderFolderSource:
        """Return the source of a loaded embedder."""
        folder = str(embedder.folder.absolute())
        return cls(folder, embedder.name, str(embedder.dtype).removeprefix("torch."), embedder.device)

    def load(self) -> Encoder:
        """Return the :class:`rag.embedding.embedder.Embedder` of the folder."""
        from rag.embedding.embedder import Embedder

        return Embedder(self.folder, self.dtype, self.name, device=self.device)


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What a worker must know before its first task."""

    storage: str
    settings: dict[str, Any]
    source: EncoderSource
    fingerprint: str
    """Of the embedder, with the index's settings and on the path that was found right."""
    path: str = ""
    """The embedder's path; "" before it was chosen."""
    tokenizer: str = ""
    """The embedder's tokenizer as JSON, to cut without the embedder; "" loads the embedder."""
    max_tokens: int = 0
    """Tokens of a text that the embedder reads; with a tokenizer."""
    made_by: str = __version__


class _PlainTokens:
    """What a chunker asks of an embedder, by its tokenizer alone."""

    def __init__(self, tokenizer: str, max_tokens: int) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_str(tokenizer)
        self.max_tokens = max_tokens

    def count_tokens(self, text: str) -> int:
        """Return the text's length in tokens, without special tokens."""
        return len(self.tokenizer.encode(text, add_special_tokens=False).ids)


class ShardWorker:
    """Carries out tasks; called with one, it returns the result. The embedder is loaded with the first and stays."""

    def __init__(self, setup: WorkerSetup) -> None:
        """Store the setup."""
        self._setup = setup
        self._storage = ShardStorage(setup.storage)
        self._loaded: Encoder | None = None
        self._chunker: Chunker | None = None

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        """Return ``{"position", "host", "name", "cut"}`` of a task.

        One that failed has ``problem``, ``hint`` and ``kind`` in place of the name, or ``traceback``.
        """
        try:
            self._check_version()
            done = self._read(task) if "files" in task else self._embed(task)
        except Problem as error:
            kind = next((name for name, known in _PROBLEMS.items() if isinstance(error, known)), "CannotRun")
            done = {"problem": error.message, "hint": error.hint, "kind": kind}
        except OSError as error:
            done = {"problem": f"a worker stopped: {error}", "hint": "", "kind": "CannotRun"}
        except Exception as error:
            if "OutOfMemory" in type(error).__name__ or isinstance(error, MemoryError):
                hint = "give fewer actors, or more memory to each: --actors N"
                done = {"problem": "a worker ran out of memory", "hint": hint, "kind": "CannotRun"}
            else:
                done = {"traceback": traceback.format_exc()}
        return {"position": task["position"], "host": platform.node(), **done}

    def _check_version(self) -> None:
        if self._setup.made_by != __version__:
            raise CannotRun(
                f"the build was started by tunewise {self._setup.made_by}, this machine has {__version__}",
                "install the same version on every machine",
            )

    def _encoder(self) -> Encoder:
        if self._loaded is None:
            setup = self._setup
            encoder = configured_encoder(setup.source.load(), IndexSettings.from_json(setup.settings))
            if isinstance(encoder, Configurable):
                encoder = encoder.matching(setup.fingerprint, setup.path) or encoder
            if encoder.fingerprint != setup.fingerprint:
                raise CannotRun(
                    f"this machine has another embedder: {encoder.fingerprint}, the build was started with "
                    f"{setup.fingerprint}",
                    "put the same embedder folder on every machine",
                )
            self._loaded = encoder
        return self._loaded

    def _cutter(self) -> Chunker:
        if self._chunker is None:
            setup = self._setup
            counter = _PlainTokens(setup.tokenizer, setup.max_tokens) if setup.tokenizer else self._encoder()
            self._chunker = Chunker(counter, IndexSettings.from_json(setup.settings))
        return self._chunker

    def _read(self, task: dict[str, Any]) -> dict[str, Any]:
        """Read and cut a run of files, and store it under the name of what was read."""
        files = [InputFile(*values) for values in task["files"]]
        chunker = self._cutter()
        with tempfile.TemporaryDirectory() as folder:
            run = read_files(_local_file(file, n, Path(folder)) for n, file in enumerate(files))
        # what the storage says of an object behind a URL stays; a local file is named by the bytes that were read
        identities = [
            (file.id, file.identity if is_url(file.location) else run.hashes[file.id]) for file in files
        ]
        for file, (_, identity) in zip(files, identities, strict=True):
            if identity.startswith(UNREADABLE) and not file.identity.startswith(UNREADABLE):
                raise CannotRun(
                    f"{file.location} was readable where the build was started, and is not where it is read: "
                    f"{identity.removeprefix(UNREADABLE)}",
                    "put the documents where every machine sees them, or give a URL",
                )
        stored = DocumentShard.of(run, chunker)
        name = document_shard_name(identities, task["facts"])
        self._storage.write(name, stored.to_bytes())
        return {"name": name}

    def _embed(self, task: dict[str, Any]) -> dict[str, Any]:
        """Embed units of texts, each by itself, and store their vectors."""
        encoder = self._encoder()
        before = encoder.cut if isinstance(encoder, Configurable) else 0
        vectors = np.concatenate([encoder.encode(unit) for unit in task["units"]])
        cut = encoder.cut - before if isinstance(encoder, Configurable) else 0
        self._storage.write(task["name"], vectors_to_bytes(vectors, cut))
        return {"name": task["name"], "cut": cut}


def raise_problem(result: dict[str, Any]) -> None:
    """Raise the problem that a task's result names, if it names one, with the machine it happened on.

    An error that no user can mend is raised as RuntimeError with the traceback of the worker.
    """
    if "traceback" in result:
        raise RuntimeError(f"a worker on {result['host']} failed:\n{result['traceback']}")
    if "problem" not in result:
        return
    kind = _PROBLEMS.get(result["kind"], CannotRun)
    raise kind(f"{result['problem']} (on {result['host']})", result["hint"])


def task_text(task: dict[str, Any]) -> str:
    """Return a task, or its result, as text: schedulers hand on one column of texts."""
    return json.dumps(task, ensure_ascii=True)


def file_fields(file: InputFile) -> list[Any]:
    """Return a file as a task lists it."""
    return list(asdict(file).values())


def _local_file(file: InputFile, number: int, folder: Path) -> FoundFile:
    """Return a file of this machine; one behind a URL is downloaded into the folder first."""
    if not is_url(file.location):
        return FoundFile(file.id, Path(file.location))
    path = folder / f"{number}"
    download_file(file.location, path)
    return FoundFile(file.id, path)
