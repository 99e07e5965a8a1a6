"""Tables of an index in PostgreSQL.

An index is a schema. ``generations`` has a row for each retained generation, ``notes`` what a writer stores beside them.
All other tables belong to a table set: a build from nothing makes a new set, an update changes rows of the current one.
Rows of a set have the generation in which they were added (``born``) and the first one that lacks them (``died``), so that
a reader of the generation before goes on with what it opened. Vectors are never updated, because each new row version would
be inserted into the HNSW index again: ids whose chunk is gone are listed in ``removed`` until no reader needs them.
"""

# ruff: noqa: S608 - names put into statements are made here

from __future__ import annotations

from dataclasses import dataclass

from rag.stores.capacity import HNSW_NEIGHBOURS
from rag.stores.text import CHUNK_COLUMNS

FORMAT = 1
"""Number of this arrangement of the tables; a newer one is refused."""
NEVER = 2_147_483_647
"""``died`` of a row that lives."""
HNSW_CONSTRUCTION = 64
"""Candidates looked at when a vector is inserted; pgvector's default."""
MIN_HNSW_CHUNKS = 10_000
"""Below this many chunks an exact scan takes milliseconds and no HNSW index is made."""
MAX_HNSW_DIMENSIONS = {"vector": 2000, "halfvec": 4000}
"""Limits of pgvector's HNSW."""
_PLAIN_BYTES = 7000
"""Vectors up to this size are stored in the row itself, so that an exact scan reads pages in order."""

COMMON_TABLES = (
    "create table if not exists {schema}.generations (number int primary key, tables int not null, "
    "next_id bigint not null, facts text not null, documents int not null, chunks int not null, words bigint not null, "
    "indexed boolean not null, published timestamptz not null default now())",
    "create table if not exists {schema}.notes (key text primary key, value bytea not null)",
)
_MORTAL_TABLES = ("documents", "texts", "values", "chunks", "postings")
"""Tables with a column ``died``."""
_INTEGERS = ("doc", "ordinal", "start", "end", "line_start", "line_end", "page")
_LIFE = "born int not null, died int not null default 2147483647"


@dataclass(frozen=True, slots=True)
class TableSet:
    """The tables of one build; attributes are SQL names."""

    schema: str
    """The schema as an identifier."""
    number: int

    def name(self, table: str) -> str:
        """Return the SQL name of one of the set's tables."""
        return f"{self.schema}.{table}_{self.number}"

    def creation(self, dimension: int, vectors: str) -> list[str]:
        """Return the statements that make the tables, without indexes.

        Args:
            dimension: of the vectors.
            vectors: ``vector`` (4 bytes a dimension) or ``halfvec`` (2, rounded to 11 bits).
        """
        columns = ", ".join(
            f'"{name}" {"bigint not null" if name == "id" else "int" if name in _INTEGERS else "text not null"}'
            for name in CHUNK_COLUMNS
        )
        size = dimension * (4 if vectors == "vector" else 2)
        storage = " storage plain" if size <= _PLAIN_BYTES else ""
        return [
            f"create table {self.name('documents')} (number int not null, id text not null, sha256 text not null, "
            "fields text not null, raw_sha256 text not null, row text not null, chunks int not null default 0, "
            "dated date, dated_unreadable boolean not null, until date, until_unreadable boolean not null, "
            f"{_LIFE})",
            f"create table {self.name('texts')} (number int not null, raw text not null, {_LIFE})",
            f'create table {self.name("values")} (doc int not null, position int not null, "key" text not null, '
            f"name uuid not null, folded uuid, number float8, value text, {_LIFE})",
            f"create table {self.name('chunks')} ({columns}, prefix text not null, embedded text not null, "
            f"row text not null, {_LIFE})",
            f"create table {self.name('vectors')} (id bigint not null, doc int not null, born int not null, "
            f"embedding {vectors}({dimension}){storage} not null)",
            f"create table {self.name('removed')} (id bigint primary key, died int not null)",
            f"create table {self.name('postings')} (word text not null, block int not null, offsets bytea not null, "
            f"counts bytea not null, lengths bytea not null, {_LIFE})",
        ]

    def indexes(self) -> list[str]:
        """Return the statements that index the tables, but for HNSW.

        Ids of documents and hashes are looked up by hash indexes, which have no limit of length and four bytes an entry.
        """
        documents, values = self.name("documents"), self.name("values")
        return [
            f"alter table {documents} add primary key (number, born)",
            f"create index on {documents} using hash (id)",
            f"create index on {documents} (until) where until is not null",
            f"create index on {documents} (dated) where dated is not null",
            f"create index on {documents} (number) where dated_unreadable or until_unreadable",
            f"alter table {self.name('texts')} add primary key (number, born)",
            f"create index on {values} (folded)",
            f"create index on {values} (name, number)",
            f"create index on {values} (doc)",
            f"alter table {self.name('chunks')} add primary key (id, born)",
            f"create index on {self.name('chunks')} (doc)",
            f"create index on {self.name('chunks')} using hash (embedded)",
            f"alter table {self.name('vectors')} add primary key (id)",
            f"create index on {self.name('vectors')} (doc)",
            f"alter table {self.name('postings')} add primary key (word, block, born)",
            # for the deletion of what no retained generation has
            *(f"create index on {self.name(t)} (died) where died <> {NEVER}" for t in _MORTAL_TABLES),
        ]

    def hnsw(self, vectors: str) -> str:
        """Return the statement that makes the HNSW index, by inner product."""
        return (
            f"create index on {self.name('vectors')} using hnsw (embedding {vectors}_ip_ops) "
            f"with (m = {HNSW_NEIGHBOURS}, ef_construction = {HNSW_CONSTRUCTION})"
        )

    def deletions(self, oldest: int) -> list[str]:
        """Return the statements that delete all rows which generations from ``oldest`` on lack."""
        rows = [
            f"delete from {self.name(table)} where died <> {NEVER} and died <= {oldest}"
            for table in _MORTAL_TABLES
        ]
        removed = self.name("removed")
        ids = f"select id from {removed} where died <= {oldest}"
        return [
            *rows,
            f"delete from {self.name('vectors')} where id in ({ids})",
            f"delete from {removed} where died <= {oldest}",
        ]

    def tables(self) -> list[str]:
        """Return the SQL names of all tables of the set."""
        names = ("documents", "texts", "values", "chunks", "vectors", "removed", "postings")
        return [self.name(table) for table in names]
