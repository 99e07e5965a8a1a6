"""Known lines of a file of rows: parsing only the others gives what parsing everything gives."""

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
def test_an_update_finds_what_a_fresh_look_finds(versions: list[tuple[str, str]]) -> None:
    """Lines come, go, move, repeat and break, in changing encodings; another file stands beside them."""
    with tempfile.TemporaryDirectory() as place:
        folder, index = Path(place, "documents"), Path(place, "index")
        folder.mkdir()
        index.mkdir()
        (folder / "other.txt").write_text("Boats.")
        before = ScanState({}, {}, trust_mtime=False)
        for text, codec in versions:
            (folder / "rows.jsonl").write_bytes(text.encode(codec))
            found = before.load(folder)
            assert outcome(found) == outcome(ScanState({}, {}, trust_mtime=False).load(folder))
            before = ScanState(before._current, outcome(found)[0], trust_mtime=False)


@pytest.fixture
def parsed() -> tuple[list[bytes], Callable[[bytes], LoadedItems]]:
    seen: list[bytes] = []

    def parsing(data: bytes) -> LoadedItems:
        seen.append(data)
        return parse_file("rows.jsonl", data, loader_for_media("row"))

    return seen, parsing


def test_only_new_lines_are_parsed_and_they_keep_their_numbers(
    parsed: tuple[list[bytes], Callable[[bytes], LoadedItems]],
) -> None:
    seen, parsing = parsed
    items, kept, lines = read_new_rows("\n".join(LINES[:5:2]).encode(), {}, parsing)
    assert [item.id for item in items if not isinstance(item, Skipped)] == list(lines) == ["a", "b", "c"]
    assert not kept
    rows = {lines[item.id]: (item.id, item.sha256) for item in items if not isinstance(item, Skipped)}
    changed = "\r\n".join([LINES[0], "{broken", LINES[3], LINES[4]])
    items, kept, lines = read_new_rows(changed.encode(), rows, parsing)
    assert seen[1] == "\n".join(["", "{broken", LINES[3], ""]).encode()
    assert [getattr(item, "path", "") or getattr(item, "id", "") for item in items] == ["rows.jsonl:2", "b"]
    assert kept == [rows[key] for key in rows if rows[key][0] in "ac"]
    assert sorted(lines) == ["a", "b", "c"]
    assert read_new_rows(LINES[0].encode(), rows, parsing)[:2] == ([], kept[:1])
    assert len(seen) == 2, "nothing new, nothing parsed"


def test_an_id_that_a_known_line_has_is_looked_at_as_a_whole(
    parsed: tuple[list[bytes], Callable[[bytes], LoadedItems]],
) -> None:
    seen, parsing = parsed
    items, _, lines = read_new_rows(LINES[0].encode(), {}, parsing)
    rows = {lines["a"]: ("a", items[0].sha256)} if not isinstance(items[0], Skipped) else {}
    both = f"{LINES[1]}\n{LINES[0]}".encode()
    items, kept, lines = read_new_rows(both, rows, parsing)
    assert seen[-1] == both
    assert (len(items), kept, list(lines)) == (2, [], ["a"])
    assert isinstance(items[1], Skipped)
    assert reader.unchanged_document("a", "x").media == "unread"


def test_what_is_no_text_by_itself_is_read_with_the_rest(
    parsed: tuple[list[bytes], Callable[[bytes], LoadedItems]],
) -> None:
    """Three control characters are too many for a short text and few in a long one."""
    seen, parsing = parsed
    long, odd = f'{{"id": "a", "text": "{"word " * 2000}"}}', '{"id": "b", "text": "x\x7f\x7f\x7f"}'
    items, _, lines = read_new_rows(long.encode(), {}, parsing)
    rows = {key: (id, "hash") for id, key in lines.items()}
    items, kept, lines = read_new_rows(f"{long}\n{odd}".encode(), rows, parsing)
    assert [type(item).__name__ for item in items] == ["Document", "Document"]
    assert (len(seen), kept, sorted(lines)) == (3, [], ["a", "b"])
