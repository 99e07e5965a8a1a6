"""The vector cache: texts that were embedded once are not embedded again, in the same index by the same embedder.

It is stored beside the generations as ``vectors.sqlite`` and is also the journal of a build: every unit of texts is
written in one transaction as soon as it is embedded, so that an interrupted build continues from there. Keys are made
from the embedder's fingerprint and the embedded text; every row has a checksum. It is only a cache: damaged rows are
embedded again, and a damaged file is replaced by an empty one.
"""

# ruff: noqa: S608 - only question marks are put into these statements

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np

from rag.errors import BadInput
from rag.stores.sqlite import connect, database_files, sqlite_errors_as_problems

CACHE_DATABASE = "vectors.sqlite"
SPARE_FACTOR = 2
"""The cache holds at most this many times the rows in use; the oldest unused ones are deleted first."""
MIN_CACHED_VECTORS = 4096
"""It may always hold this many rows."""
_MAX_PARAMETERS = 500
"""Keys in one statement; SQLite limits the number of parameters."""
_TABLE = (
    "create table if not exists vectors (key blob unique not null, vector blob not null, row blob not null)"
)


class VectorCache:
    """Vectors by the hash of their text, for one embedder; use it as a context manager."""

    def __init__(self, folder: Path, fingerprint: str, dimension: int) -> None:
        """Open the cache, creating a new one if there is none or it is damaged."""
        self._path = folder / CACHE_DATABASE
        self._salt = fingerprint.encode("utf-8", "surrogatepass") + b"\0"
        self._bytes = dimension * 4
        self.was_reset = False
        self._db = self._open()

    def __enter__(self) -> VectorCache:
        """Return the cache."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._db.close()

    def get(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the intact vectors by text hash; missing and damaged ones are left out."""
        text_by_key = {self._key(text): text for text in texts}
        vectors: dict[str, np.ndarray] = {}
        try:
            for keys in _batches(text_by_key):
                sql = f"select key, vector, row from vectors where key in ({', '.join('?' * len(keys))})"
                for key, vector, row in self._db.execute(sql, keys).fetchall():
                    if self._is_intact(key, vector, row):
                        vectors[text_by_key[key]] = np.frombuffer(vector, dtype=np.float32)
        except (sqlite3.DatabaseError, KeyError, TypeError):
            self._reset()
        return vectors

    def put(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Store one unit of vectors, all or none of it."""
        rows = [
            (key, data, _checksum(key, data))
            for key, data in zip(map(self._key, texts), (v.tobytes() for v in vectors), strict=True)
        ]
        try:
            self._insert(rows)
        except BadInput:
            self._reset()
            self._insert(rows)

    def trim(self, used: Collection[str], *, purge: bool = False, fewest: int = MIN_CACHED_VECTORS) -> int:
        """Delete rows beyond the bound, oldest unused first, or all unused rows; return how many.

        The bound is :data:`SPARE_FACTOR` times the rows in use, or ``fewest`` rows if that is more.

        Args:
            used: text hashes in use.
            purge: delete all unused rows, and their bytes from the file.
            fewest: rows that the cache may always hold.
        """
        most = max(fewest, SPARE_FACTOR * len(used))
        try:
            with sqlite_errors_as_problems(self._path):
                if not purge and self._db.execute("select count(*) from vectors").fetchone()[0] <= most:
                    return 0
                keep = {self._key(text) for text in used}
                rows = self._db.execute("select rowid, key from vectors order by rowid").fetchall()
                excess = len(rows) if purge else len(rows) - most
                unused = ((rowid,) for rowid, key in rows if key not in keep)
                deleted = list(islice(unused, max(0, excess)))
                if deleted or purge:
                    self._delete(deleted)
                if purge:
                    self._db.execute("vacuum")
                    self._db.execute("pragma wal_checkpoint(truncate)")
        except BadInput:
            self._reset()
            return 0
        return len(deleted)

    def check(self) -> tuple[int, int]:
        """Return the number of rows and the number of damaged ones, which are deleted."""
        try:
            rows = self._db.execute("select rowid, key, vector, row from vectors").fetchall()
            damaged = [(rowid,) for rowid, *parts in rows if not self._is_intact(*parts)]
            self._delete(damaged)
        except sqlite3.DatabaseError:
            self._reset()
            return 0, 0
        return len(rows), len(damaged)

    def _insert(self, rows: list[tuple[bytes, bytes, bytes]]) -> None:
        with sqlite_errors_as_problems(self._path), self._transaction():
            self._db.executemany("insert or replace into vectors values (?, ?, ?)", rows)

    def _delete(self, rowids: list[tuple[int]]) -> None:
        with self._transaction():
            self._db.executemany("delete from vectors where rowid = ?", rowids)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("begin immediate")
        try:
            yield
            self._db.execute("commit")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("rollback")
            raise

    def _open(self) -> sqlite3.Connection:
        try:
            return self._new_connection()
        except (BadInput, sqlite3.DatabaseError):
            self.was_reset = True
            for path in database_files(self._path):
                path.unlink(missing_ok=True)
            return self._new_connection()

    def _new_connection(self) -> sqlite3.Connection:
        db = connect(self._path, "rwc")
        try:
            with sqlite_errors_as_problems(self._path):
                db.execute("pragma journal_mode = wal")
                db.execute("pragma synchronous = normal")
                db.execute(_TABLE)
                db.execute("select key, vector, row from vectors limit 1").fetchall()
        except BaseException:
            db.close()
            raise
        return db

    def _reset(self) -> None:
        self.was_reset = True
        self._db.close()
        for path in database_files(self._path):
            path.unlink(missing_ok=True)
        self._db = self._new_connection()

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(self._salt + text.encode()).digest()

    def _is_intact(self, key: object, vector: object, row: object) -> bool:
        if not (isinstance(key, bytes) and isinstance(vector, bytes) and isinstance(row, bytes)):
            return False
        return len(vector) == self._bytes and _checksum(key, vector) == row


def _checksum(key: bytes, vector: bytes) -> bytes:
    return hashlib.blake2b(key + vector, digest_size=16).digest()


def _batches(keys: Collection[bytes]) -> Iterator[list[bytes]]:
    remaining = iter(keys)
    while batch := list(islice(remaining, _MAX_PARAMETERS)):
        yield batch
