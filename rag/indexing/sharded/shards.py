"""Shards: stored results of parts of a build, each under a name made of everything that it was made from.

There are two kinds. A document shard holds a run of input files: their documents with all chunks, what was skipped and
why. A vector shard holds the vectors of some units of texts. A shard that is there and whole is never made again, so
that a build continues after any interruption, and a later build of mostly the same files reads only the changed runs.

Shards are objects below a folder or a URL. Each appears whole: by a rename in a folder, by a conditional put behind a
URL. Two writers of one name write the same results, so that it does not matter which of them wins.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rag.errors import BadInput
from rag.files import canonical_json, disk_full_as_problem, sha256_bytes, sha256_text, write_bytes
from rag.indexing.changes import ChunkSource
from rag.loading.base import CUT_VERSION, Skipped
from rag.loading.reader import ReadFiles
from rag.object_storage import is_url, join_url, list_objects, put_new, read_bytes, remove_objects
from rag.types import Chunk, Document
from rag.version import __version__

RUN_FILES = 64
"""Files of a run on average; see :func:`input_runs`."""
RUN_BYTES = 8 << 20
"""A run ends when its files have this many bytes together: a minute of embedding with all-MiniLM on a core."""
_NAME_DIGITS = 40
_DOCUMENT_FIELDS = ("id", "title", "raw", "sha256", "media", "metadata", "source", "source_sha256")
_CHUNK_FIELDS = ("ordinal", "text", "start", "end", "heading", "line_start", "line_end", "page")


class DamagedShard(Exception):
    """The bytes of a shard are not those that were written; it is made again."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file of the documents, as a task names it."""

    id: str
    location: str
    """Its path, or its URL."""
    size: int
    identity: str = ""
    """SHA-256 of its bytes; behind a URL what the storage says of its version."""


def input_runs(
    files: Sequence[InputFile], run_files: int = RUN_FILES, run_bytes: int = RUN_BYTES
) -> Iterator[list[InputFile]]:
    """Yield runs of consecutive files.

    Where a run ends is decided by the hash of a file's id, so that a new or removed file changes the run that it is in
    and no other; a run also ends when it is four times as long as the average, or large.

    Args:
        files: in the order of reading.
        run_files: files of a run on average.
        run_bytes: bytes at which a run ends.
    """
    run: list[InputFile] = []
    size = 0
    for file in files:
        run.append(file)
        size += file.size
        ends = int(sha256_text(file.id)[:8], 16) % run_files == 0
        if ends or len(run) >= 4 * run_files or size >= run_bytes:
            yield run
            run, size = [], 0
    if run:
        yield run


def document_shard_name(files: Iterable[tuple[str, str]], facts: Mapping[str, Any]) -> str:
    """Return the name of a document shard.

    Args:
        files: id and identity of its files, in order.
        facts: what decides the chunks besides: settings and the embedder's fingerprint.
    """
    made_of = {"made_by": __version__, "cut": CUT_VERSION, **facts, "files": [list(file) for file in files]}
    return f"documents-{sha256_text(canonical_json(made_of))[:_NAME_DIGITS]}.jsonl.gz"


def vector_shard_name(units: Iterable[Sequence[str]], facts: Mapping[str, Any]) -> str:
    """Return the name of a vector shard.

    Args:
        units: the texts of each of its units, in order.
        facts: what decides the vectors besides: fingerprint, path, device and versions.
    """
    made_of = {"made_by": __version__, **facts, "units": [list(map(sha256_text, unit)) for unit in units]}
    return f"vectors-{sha256_text(canonical_json(made_of))[:_NAME_DIGITS]}.safetensors"


@dataclass(frozen=True, slots=True)
class ShardStorage:
    """Where shards are: a folder or a URL."""

    location: str

    def names(self) -> set[str]:
        """Return the names of all shards that are there."""
        if is_url(self.location):
            return set(list_objects(self.location))
        folder = Path(self.location)
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()

    def write(self, name: str, data: bytes) -> None:
        """Write a shard; one of that name that is there stays or is replaced by equal results."""
        if is_url(self.location):
            put_new(join_url(self.location, name), data)
        else:
            write_bytes(Path(self.location, name), data)

    def read(self, name: str) -> bytes:
        """Return the bytes of a shard; BadInput when it is not there."""
        if is_url(self.location):
            return read_bytes(join_url(self.location, name))
        try:
            return Path(self.location, name).read_bytes()
        except FileNotFoundError:
            raise BadInput(f"there is no shard {name} in {self.location}") from None

    def remove(self, names: Iterable[str]) -> None:
        """Remove shards."""
        if is_url(self.location):
            remove_objects(self.location, names)
        else:
            with disk_full_as_problem(self.location):
                for name in names:
                    Path(self.location, name).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class DocumentShard:
    """A run of files, read and cut."""

    files: ReadFiles
    """Documents come without their blocks."""
    chunks: Sequence[Sequence[Chunk]]
    """The chunks of each document among the items, in their order."""
    prefixes: Mapping[tuple[str, str], str]
    """What is embedded before a chunk's text, by its title and heading path."""

    @classmethod
    def of(cls, run: ReadFiles, chunker: ChunkSource) -> DocumentShard:
        """Cut the documents of a run; their blocks, which nothing needs afterwards, are left out."""
        items: list[Document | Skipped] = []
        chunks: list[list[Chunk]] = []
        prefixes: dict[tuple[str, str], str] = {}
        for item in run.items:
            if isinstance(item, Skipped):
                items.append(item)
                continue
            items.append(replace(item, blocks=()))
            chunks.append(chunker.chunks(item))
            for chunk in chunks[-1]:
                if (chunk.title, chunk.heading) not in prefixes:
                    text = chunker.embedded_text(chunk)
                    prefixes[chunk.title, chunk.heading] = text[: len(text) - len(chunk.text)]
        return cls(replace(run, items=items), chunks, prefixes)

    def to_bytes(self) -> bytes:
        """Return the shard as compressed JSON lines, the first of which has the hash of the others."""
        cut_documents = iter(self.chunks)
        lines = [
            canonical_line({"memory_limited": self.files.memory_limited, "hashes": dict(self.files.hashes)})
        ]
        for item in self.files.items:
            if isinstance(item, Skipped):
                lines.append(canonical_line({"skipped": item.to_json()}))
                continue
            chunks = [[getattr(chunk, name) for name in _CHUNK_FIELDS] for chunk in next(cut_documents)]
            document = {name: getattr(item, name) for name in _DOCUMENT_FIELDS}
            lines.append(canonical_line({"document": document, "chunks": chunks}))
        prefixes = [[*key, prefix] for key, prefix in self.prefixes.items()]
        rows = {source: dict(lines_of) for source, lines_of in self.files.lines.items()}
        lines.append(canonical_line({"prefixes": prefixes, "lines": rows}))
        body = "".join(lines).encode("ascii")
        head = canonical_line({"kind": "tunewise-document-shard", "schema": 1, "sha256": sha256_bytes(body)})
        return gzip.compress(head.encode("ascii") + body, compresslevel=1, mtime=0)

    @classmethod
    def from_bytes(cls, data: bytes) -> DocumentShard:
        """Return the shard of :meth:`to_bytes`; DamagedShard when the bytes are not what was written."""
        try:
            head, _, body = gzip.decompress(data).partition(b"\n")
            if json.loads(head)["sha256"] != sha256_bytes(body):
                raise DamagedShard("its hash differs")
            first, *rows, last = map(json.loads, body.splitlines())
        except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as error:
            raise DamagedShard(str(error)) from error
        items: list[Document | Skipped] = []
        chunks: list[list[Chunk]] = []
        for row in rows:
            if "skipped" in row:
                items.append(Skipped(**row["skipped"]))
                continue
            document = Document(blocks=(), **row["document"])
            items.append(document)
            cut = [
                Chunk(
                    id=0,
                    doc=document.id,
                    title=document.title,
                    **dict(zip(_CHUNK_FIELDS, values, strict=True)),
                )
                for values in row["chunks"]
            ]
            chunks.append(cut)
        files = ReadFiles(items, last["lines"], first["hashes"], first["memory_limited"])
        return cls(files, chunks, {(title, heading): prefix for title, heading, prefix in last["prefixes"]})


def canonical_line(row: dict[str, Any]) -> str:
    """Return a JSON line of ASCII characters: also halves of surrogate pairs in file names come back as they were."""
    return json.dumps(row, ensure_ascii=True, separators=(",", ":"), allow_nan=False) + "\n"


def vectors_to_bytes(vectors: np.ndarray, cut: int) -> bytes:
    """Return vectors as a safetensors file with their hash.

    Args:
        vectors: float32 [texts, dimension].
        cut: how many of the texts were longer than the embedder reads.
    """
    from safetensors.numpy import save

    metadata = {"kind": "tunewise-vector-shard", "sha256": sha256_bytes(vectors.tobytes()), "cut": str(cut)}
    return bytes(save({"vectors": np.ascontiguousarray(vectors)}, metadata=metadata))


def vectors_from_bytes(data: bytes) -> tuple[np.ndarray, int]:
    """Return the vectors and the count of :func:`vectors_to_bytes`; DamagedShard when the bytes are not what was written."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        vectors: np.ndarray = load(data)["vectors"]
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        if header["sha256"] != sha256_bytes(vectors.tobytes()):
            raise DamagedShard("its hash differs")
        return vectors, int(header["cut"])
    except (SafetensorError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DamagedShard(str(error)) from error
