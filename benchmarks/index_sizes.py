"""Bytes a chunk of indexes that this program builds, by part, beside the formulas of docs/scale.md.

    python -m benchmarks.index_sizes --documents FOLDER --index FOLDER [URL...]

An index of files is built in the folder, and one at each URL: lancedb:///FOLDER, postgresql://USER@HOST/DATABASE?index=NAME
(password from the environment). Vectors are pseudo-random, because only sizes matter here; PostgreSQL makes its HNSW index
from 10,000 chunks on, LanceDB its own above 100,000.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.large_index import DIMENSION, RandomEncoder
from benchmarks.retrieval_scale import ChunkTexts, index_parts
from rag.backends.build import build_at
from rag.index import Index
from rag.settings import IndexSettings
from rag.stores.text import TEXT_DATABASE
from rag.text.words import words

CHUNK_WORDS = 150
"""Words of a chunk, about 200 tokens: the encoder here counts words."""
SAMPLE = 2000
"""Chunks whose words are counted."""


def files_parts(folder: Path) -> Counter[str]:
    """Return the bytes of an index of files by part."""
    kinds = {"vectors.faiss": "vectors", "vectors.npy": "vectors", "vectors.sqlite": "vector cache"}
    parts: Counter[str] = Counter()
    for path in folder.rglob("*"):
        if path.is_file():
            inner = "words" if path.parent.name == "lexical" else "texts"
            inner = "vector index" if path.name.startswith("proposer") else inner
            parts[kinds.get(path.name, inner)] += path.stat().st_size
    return parts


def lance_parts(folder: Path, chunks: int) -> Counter[str]:
    """Return the bytes of an index in LanceDB by part; its indexes count as words, which they are up to 100,000 chunks."""
    parts: Counter[str] = Counter()
    for path in folder.rglob("*"):
        if path.is_file():
            table, _, rest = path.relative_to(folder).as_posix().partition("/")
            parts["words" if rest.startswith("_indices") or table == "words.lance" else "texts"] += (
                path.stat().st_size
            )
    parts["vectors"] = chunks * 4 * DIMENSION
    parts["texts"] -= parts["vectors"]
    return parts


def postgres_parts(url: str) -> Counter[str]:
    """Return the bytes of an index in PostgreSQL by part, from the sizes of its tables and indexes."""
    from rag.backends.postgresql.connection import PostgresAddress, open_connection

    address = PostgresAddress.parse(url)
    statement = (
        "select t.relname, i.relname, pg_relation_size(i.oid) from pg_index x join pg_class i on i.oid = x.indexrelid "
        "join pg_class t on t.oid = x.indrelid where t.relnamespace = %(schema)s::regnamespace union all "
        "select relname, '', pg_table_size(oid) from pg_class "
        "where relkind = 'r' and relnamespace = %(schema)s::regnamespace"
    )
    parts: Counter[str] = Counter()
    with open_connection(address) as connection:
        for table, index, size in connection.execute(statement, {"schema": address.schema}).fetchall():
            kind = {"vectors": "vectors", "postings": "words"}.get(table.partition("_")[0], "texts")
            parts["vector index" if "embedding" in index else kind] += size
    return parts


def measured_texts(index: Path) -> tuple[int, ChunkTexts]:
    """Return the number of chunks of an index of files, and what their texts weigh."""
    with closing(sqlite3.connect(f"file:{index / TEXT_DATABASE}?mode=ro", uri=True)) as database:
        chunks, text = database.execute(
            "select count(*), avg(length(cast(text as blob))) from chunks"
        ).fetchone()
        (raw,) = database.execute("select sum(length(cast(raw as blob))) from documents").fetchone()
        sample = [words(text) for (text,) in database.execute(f"select text from chunks limit {SAMPLE}")]
    count = len(sample)
    return chunks, ChunkTexts(
        text, raw / chunks, sum(map(len, sample)) / count, sum(len(set(each)) for each in sample) / count
    )


def main() -> None:
    """Build the indexes and print a JSON line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=Path, required=True)
    parser.add_argument("--index", type=Path, required=True, help="a folder that is not there yet")
    parser.add_argument("urls", nargs="*", metavar="URL")
    arguments = parser.parse_args()
    encoder, settings = RandomEncoder(), IndexSettings(max_tokens=CHUNK_WORDS)
    Index.build(arguments.index, arguments.documents, encoder, settings=settings)
    chunks, texts = measured_texts(arguments.index)
    measured = {"files": files_parts(arguments.index)}
    for url in arguments.urls:
        build_at(url, arguments.documents, encoder, settings)
        if url.startswith("postgresql:"):
            measured["postgresql"] = postgres_parts(url)
        else:
            measured["lancedb-exact"] = lance_parts(Path(urlsplit(url).path), chunks)
    for backend, parts in measured.items():
        formula = index_parts(chunks, backend, DIMENSION, texts=texts)
        line = {
            "backend": backend,
            "chunks": chunks,
            "texts": {name: round(value, 1) for name, value in asdict(texts).items()},
            "parts": {name: round(parts[name] / chunks, 1) for name in formula},
            "formula": {name: round(value / chunks, 1) for name, value in formula.items()},
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
