"""The vector cache: what was embedded once is not embedded again, in the same index, by the same embedder.

It lies beside the generations as ``vectors.sqlite`` and is also the journal of a build: every unit of texts
is kept in one transaction as soon as it is embedded, so that an interrupted build goes on from there. Keys
are made from the embedder's fingerprint and the embedded text; every row carries a hash. It is only a
cache: damaged rows are embedded again, and a damaged file is begun anew.
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
"""The cache holds at most this many times the rows that are in use; the oldest unused ones go first."""
MIN_CACHED_VECTORS = 4096
"""It may always hold this many rows."""
_AT_ONCE = 500
_TABLE = (
    "create table if not exists vectors (key blob unique not null, vector blob not null, row blob not null)"
)


class VectorCache:
    """Vectors by the hash of their text, for one embedder; use it as a context manager."""

    def __init__(self, folder: Path, fingerprint: str, dimension: int) -> None:
        """Open the cache, beginning a new one where there is none or it is damaged."""
        self._path = folder / CACHE_DATABASE
        self._salt = fingerprint.encode("utf-8", "surrogatepass") + b"\0"
        self._bytes = dimension * 4
        self.began_anew = False
        self._db = self._open()

    def __enter__(self) -> VectorCache:
        """Return the cache."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._db.close()

    def get(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the vectors that are here and whole, by text hash; the others are simply missing."""
        wanted = {self._key(text): text for text in texts}
        found: dict[str, np.ndarray] = {}
        try:
            for keys in _batches(wanted):
                sql = f"select key, vector, row from vectors where key in ({', '.join('?' * len(keys))})"
                for key, vector, row in self._db.execute(sql, keys).fetchall():
                    if self._is_whole(key, vector, row):
                        found[wanted[key]] = np.frombuffer(vector, dtype=np.float32)
        except (sqlite3.DatabaseError, KeyError, TypeError):
            self._begin_anew()
        return found

    def put(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Keep one unit of vectors, all or none of it."""
        rows = [
            (key, data, _row(key, data))
            for key, data in zip(map(self._key, texts), (v.tobytes() for v in vectors), strict=True)
        ]
        try:
            self._insert(rows)
        except BadInput:
            self._begin_anew()
            self._insert(rows)

    def trim(self, used: Collection[str], *, purge: bool = False, fewest: int = MIN_CACHED_VECTORS) -> int:
        """Delete rows beyond the bound, oldest unused first, or all unused rows; return how many.

        The bound is ``SPARE`` times what is used, or ``fewest`` rows where that is more.
        """
        most = max(fewest, SPARE_FACTOR * len(used))
        try:
            with sqlite_errors_as_problems(self._path):
                if not purge and self._db.execute("select count(*) from vectors").fetchone()[0] <= most:
                    return 0
                keep = {self._key(text) for text in used}
                rows = self._db.execute("select rowid, key from vectors order by rowid").fetchall()
                over = len(rows) if purge else len(rows) - most
                idle = ((rowid,) for rowid, key in rows if key not in keep)
                gone = list(islice(idle, max(0, over)))
                if gone or purge:
                    self._delete(gone)
                if purge:
                    self._db.execute("vacuum")
                    self._db.execute("pragma wal_checkpoint(truncate)")
        except BadInput:
            self._begin_anew()
            return 0
        return len(gone)

    def check(self) -> tuple[int, int]:
        """Return how many rows are here and how many of them are damaged (those are deleted)."""
        try:
            rows = self._db.execute("select rowid, key, vector, row from vectors").fetchall()
            bad = [(rowid,) for rowid, *parts in rows if not self._is_whole(*parts)]
            self._delete(bad)
        except sqlite3.DatabaseError:
            self._begin_anew()
            return 0, 0
        return len(rows), len(bad)

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
            return self._connected()
        except (BadInput, sqlite3.DatabaseError):
            self.began_anew = True
            for path in database_files(self._path):
                path.unlink(missing_ok=True)
            return self._connected()

    def _connected(self) -> sqlite3.Connection:
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

    def _begin_anew(self) -> None:
        self.began_anew = True
        self._db.close()
        for path in database_files(self._path):
            path.unlink(missing_ok=True)
        self._db = self._connected()

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(self._salt + text.encode()).digest()

    def _is_whole(self, key: object, vector: object, row: object) -> bool:
        if not (isinstance(key, bytes) and isinstance(vector, bytes) and isinstance(row, bytes)):
            return False
        return len(vector) == self._bytes and _row(key, vector) == row


def _row(key: bytes, vector: bytes) -> bytes:
    return hashlib.blake2b(key + vector, digest_size=16).digest()


def _batches(keys: Collection[bytes]) -> Iterator[list[bytes]]:
    left = iter(keys)
    while batch := list(islice(left, _AT_ONCE)):
        yield batch
