"""Rows read before: parsing only the new lines gives the same as parsing all."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.loading import reader
from rag.loading.base import Skipped
from rag.loading.incremental import ScanState
from rag.loading.reader import LoadedDocuments, LoadedItems, parse_file, read_new_rows
from rag.loading.registry import loader_for_media

LINES = [
    *(f'{{"id": "{id}", "text": "Pier {text}."}}' for id in "abc" for text in (1, 2)),
    '{"id": "d", "text": "Caf\u00e9\u2028two lines", "date": "1 May 2026"}',
    '\u00a0{"id": "a", "text": "Pier 1."}',
    '{"id": "a", "text": "Pier 1."} ',
    '{"id": "e"}',
    "{broken",
    "",
    " \t",
    "\x01\x02\x03",
]
ENDS = st.sampled_from(["\n", "\r\n", "\r"])
FILES = st.lists(st.tuples(st.sampled_from(LINES), ENDS), max_size=9).map(
    lambda rows: "".join(line + end for line, end in rows)
)
CODECS = st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16"])


def outcome(loaded: LoadedDocuments) -> tuple[dict[str, str], list[Skipped]]:
    return {d.id: d.sha256 for d in loaded.documents}, list(loaded.skipped)


@given(st.lists(st.tuples(FILES, CODECS), min_size=2, max_size=4))
def test_incremental_load_equals_full_load(versions: list[tuple[str, str]]) -> None:
    """Lines are added, removed, moved, repeated and broken, in changing encodings, next to another file."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, index = Path(temporary, "documents"), Path(temporary, "index")
        folder.mkdir()
        index.mkdir()
        (folder / "other.txt").write_text("Boats.")
        before = ScanState({}, {}, trust_mtime=False)
        for text, codec in versions:
            (folder / "rows.jsonl").write_bytes(text.encode(codec))
            loaded = before.load(folder)
            assert outcome(loaded) == outcome(ScanState({}, {}, trust_mtime=False).load(folder))
            before = ScanState(before._current, outcome(loaded)[0], trust_mtime=False)


@pytest.fixture
def recording_parser() -> tuple[list[bytes], Callable[[bytes], LoadedItems]]:
    parsed_bytes: list[bytes] = []

    def parse(data: bytes) -> LoadedItems:
        parsed_bytes.append(data)
        return parse_file("rows.jsonl", data, loader_for_media("row"))

    return parsed_bytes, parse


def test_only_new_lines_are_parsed_with_their_line_numbers(
    recording_parser: tuple[list[bytes], Callable[[bytes], LoadedItems]],
) -> None:
    parsed_bytes, parse = recording_parser
    items, unchanged, lines = read_new_rows("\n".join(LINES[:5:2]).encode(), {}, parse)
    assert [item.id for item in items if not isinstance(item, Skipped)] == list(lines) == ["a", "b", "c"]
    assert not unchanged
    rows = {lines[item.id]: (item.id, item.sha256) for item in items if not isinstance(item, Skipped)}
    changed = "\r\n".join([LINES[0], "{broken", LINES[3], LINES[4]])
    items, unchanged, lines = read_new_rows(changed.encode(), rows, parse)
    assert parsed_bytes[1] == "\n".join(["", "{broken", LINES[3], ""]).encode()
    assert [getattr(item, "path", "") or getattr(item, "id", "") for item in items] == ["rows.jsonl:2", "b"]
    assert unchanged == [rows[key] for key in rows if rows[key][0] in "ac"]
    assert sorted(lines) == ["a", "b", "c"]
    assert read_new_rows(LINES[0].encode(), rows, parse)[:2] == ([], unchanged[:1])
    assert len(parsed_bytes) == 2, "nothing new, nothing parsed"


def test_repeated_id_makes_the_whole_file_be_parsed(
    recording_parser: tuple[list[bytes], Callable[[bytes], LoadedItems]],
) -> None:
    parsed_bytes, parse = recording_parser
    items, _, lines = read_new_rows(LINES[0].encode(), {}, parse)
    rows = {lines["a"]: ("a", items[0].sha256)} if not isinstance(items[0], Skipped) else {}
    both = f"{LINES[1]}\n{LINES[0]}".encode()
    items, unchanged, lines = read_new_rows(both, rows, parse)
    assert parsed_bytes[-1] == both
    assert (len(items), unchanged, list(lines)) == (2, [], ["a"])
    assert isinstance(items[1], Skipped)
    assert reader.unchanged_document("a", "x").media == "unread"


def test_line_that_is_binary_by_itself_is_parsed_with_the_file(
    recording_parser: tuple[list[bytes], Callable[[bytes], LoadedItems]],
) -> None:
    """Three control characters are too many for a short text and few in a long one."""
    parsed_bytes, parse = recording_parser
    long, odd = f'{{"id": "a", "text": "{"word " * 2000}"}}', '{"id": "b", "text": "x\x7f\x7f\x7f"}'
    items, _, lines = read_new_rows(long.encode(), {}, parse)
    rows = {key: (id, "hash") for id, key in lines.items()}
    items, unchanged, lines = read_new_rows(f"{long}\n{odd}".encode(), rows, parse)
    assert [type(item).__name__ for item in items] == ["Document", "Document"]
    assert (len(parsed_bytes), unchanged, sorted(lines)) == (3, [], ["a", "b"])
