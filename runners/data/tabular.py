"""Read rows from JSON, JSON lines, CSV, TSV and Parquet files; errors name the place of a broken row.

:func:`read_rows` reads one file, :func:`find_example_files` finds the files of a folder. Text is UTF-8, or what a byte
order mark declares. JSON is never anything else; the encoding of tables and plain texts, which programs for spreadsheets
write in that of the system, is detected and said. Parquet is read in batches, without the columns that cannot be part of
a text.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.errors import BadInput
from rag.loading.base import UnreadableFile
from rag.loading.encoding import decode_bytes
from rag.loading.formats.tables import broken_quote

if TYPE_CHECKING:
    from pyarrow import DataType
    from pyarrow.parquet import ParquetFile

Row = tuple[int, dict[str, Any]]
"""A 1-based line (in a .json list or Parquet: the row's number) and the row's keys and values."""

PARQUET_BATCH_ROWS = 1024
"""Rows of a Parquet file that are decoded at once."""
DELIMITERS = ",;\t|"
ROW_FORMAT = (
    'a .jsonl has one object a line, such as {"question": "...", "answer": "..."}; a .csv names its columns in the first '
    "line, such as question,answer"
)
"""How rows of prompts and replies are usually written, for messages."""
MAX_FIELD_BYTES = 2**31 - 1
"""Longest CSV field; the csv module's own limit of 131,072 characters is too short for documents."""
TEXT_SUFFIXES = (".txt", ".md")
"""Files that are one raw text each."""
GUESSED_SUFFIXES = (".csv", ".tsv", *TEXT_SUFFIXES)
"""Files whose encoding is detected where it is not UTF-8."""
STREAMED = ("utf-8", "utf-8-sig")
"""Encodings that are read line by line; a file in another is decoded whole."""
DELIMITER_ROWS = 30
"""Rows after the header that a delimiter is judged by."""
_HEAD_BYTES, _CHUNK_BYTES = 400, 1 << 20
_ENCODING_NAMES = {"mac_roman": "Mac Roman", "latin-1": "Latin-1"}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks and their encodings; UTF-32's before UTF-16's, which is a prefix of it."""


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file of the folder that is not read, with the reason."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class ExampleFiles:
    """The files to read, in order, and those that are skipped."""

    root: Path
    files: tuple[Path, ...]
    skipped: tuple[SkippedFile, ...] = ()

    def name(self, path: Path) -> str:
        """Return a file's name as it is shown: relative to the folder that was given, with ``/`` as separator."""
        return path.name if path == self.root else path.relative_to(self.root).as_posix()


def find_example_files(path: Path) -> ExampleFiles:
    """Return the file, or every file below the folder in the order of their names; hidden ones are ignored.

    Plain texts (.txt, .md) are read when a folder holds nothing else: beside files of rows they are a README or a
    licence. Raises BadInput when there is nothing to read.
    """
    if not path.is_dir():
        return ExampleFiles(path, (path,))
    names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    visible = [path / name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    row_files = [p for p in visible if p.suffix.lower() in READERS]
    files = row_files or [p for p in visible if p.suffix.lower() in TEXT_SUFFIXES]
    skipped = []
    for other in (p for p in visible if p not in set(files)):
        text = other.suffix.lower() in TEXT_SUFFIXES
        reason = "a text among files of rows" if text else f"{other.suffix or 'no ending'} is not read"
        skipped.append(SkippedFile(other.relative_to(path).as_posix(), reason))
    if not files:
        known = ", ".join((*READERS, *TEXT_SUFFIXES))
        raise BadInput(f"{path} is a folder without a file of examples", f"it needs files ending in {known}")
    return ExampleFiles(path, tuple(files), tuple(skipped))


def read_rows(path: Path, most: int | None = None) -> list[Row]:
    """Return the rows of a file, at most ``most``; BadInput names file, line and reason when one is broken."""
    if path.is_dir():
        raise BadInput(
            f"{path} is a folder, expected a .jsonl, .json, .csv, .tsv or .parquet file",
            "name the file in it",
        )
    if not path.is_file():
        raise BadInput(f"{path} does not exist", "correct the path")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(READERS)
        raise BadInput(
            f"{path}: {path.suffix or 'a file without ending'} is not read", f"write it as {known}"
        )
    rows = list(islice(reader(path), most))
    if not rows:
        raise BadInput(f"{path} has no rows", f"put rows into it: {ROW_FORMAT}")
    return rows


def count_rows(path: Path) -> int:
    """Count a file's rows without keeping them; a broken JSON line is counted, other errors end the count."""
    kind = path.suffix.lower()
    if kind == ".parquet":
        return count_parquet_rows(path)
    if kind in (".jsonl", ".ndjson"):
        return sum(bool(line.strip()) for line in text_lines(path))
    return sum(1 for _ in READERS[kind](path))


def describe_file(path: Path) -> tuple[str, ...]:
    """Return notes about a file beyond its ending: its encoding, its delimiter, columns that are not read."""
    kind = path.suffix.lower()
    if kind == ".parquet":
        unread = unread_columns(path)
        return (f"columns left unread (bytes or vectors): {', '.join(unread)}",) if unread else ()
    notes = [note] if (note := describe_encoding(path)) else []
    if kind == ".csv" and (delimiter := detect_delimiter(path)) != ",":
        notes.append(f"columns are separated by {'a tab' if delimiter == chr(9) else repr(delimiter)}")
    return tuple(notes)


def describe_encoding(path: Path) -> str:
    """Return how a file of text was decoded, with a word by which it can be judged; "" for UTF-8 and for Parquet."""
    encoding = "utf-8" if path.suffix.lower() == ".parquet" else encoding_of(path)
    if encoding in STREAMED:
        return ""
    if encoding in ("utf-16", "utf-32"):
        return f"read as {encoding.upper()}, as its byte order mark says"
    words = (word for line in text_lines(path) for word in re.split(r"[\s,;|\"]+", line))
    word = next((word for word in words if not word.isascii()), "")
    return f"not UTF-8: read as {encoding_name(encoding)}{f', as in {word[:40]!r}' if word else ''}"


def detect_delimiter(path: Path) -> str:
    """Return the delimiter of a table: of ``, ; tab |`` the one by which most rows have as many values as the header.

    Where several do, the one with most columns: ``Price, net;Reply`` has two columns by either mark, its rows by one.
    """
    if path.suffix.lower() == ".tsv":
        return "\t"
    csv.field_size_limit(MAX_FIELD_BYTES)
    lines: list[str] = []
    try:
        lines.extend(islice(text_lines(path), DELIMITER_ROWS + 1))
    except BadInput:  # a damaged row further down is for the reader of the rows to name, or to leave out
        if not lines:
            raise

    def fit(mark: str) -> tuple[float, int]:
        rows = [row for row in csv.reader(lines, delimiter=mark) if row]
        columns = len(rows[0]) if rows else 0
        same = sum(len(row) == columns for row in rows[1:]) / max(1, len(rows) - 1)
        return (same, columns) if columns > 1 else (0.0, 0)

    return max(DELIMITERS, key=fit)


def encoding_of(path: Path) -> str:
    """Return the encoding of a file: by its byte order mark, else ``utf-8``.

    A table or plain text that is not UTF-8 has the encoding that its bytes suggest
    (:func:`rag.loading.encoding.decode_bytes`); one that is UTF-8 but for some damaged bytes stays UTF-8.
    """
    with path.open("rb") as file:
        start = file.read(_HEAD_BYTES)
    marked = next((name for mark, name in _MARKS if start.startswith(mark)), "")
    if marked or path.suffix.lower() not in GUESSED_SUFFIXES or (b"\0" not in start and _is_utf8(path)):
        return marked or "utf-8"
    try:
        _, metadata = decode_bytes(path.read_bytes())
    except UnreadableFile:
        return "utf-8"  # reading it names the first byte that does not fit
    return "utf-8" if "undecoded" in metadata else str(metadata.get("encoding", "utf-8"))


def encoding_name(encoding: str) -> str:
    """Return the usual name of an encoding: Windows-1252 for ``cp1252``."""
    windows = (
        f"Windows-{encoding[2:]}" if encoding.startswith("cp125") else encoding.upper().replace("_", "-")
    )
    return _ENCODING_NAMES.get(encoding, windows)


def _is_utf8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        try:
            while chunk := file.read(_CHUNK_BYTES):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def read_text(path: Path) -> str:
    """Return a file's text; BadInput names line, byte and offset of a byte that is not in the encoding."""
    return "".join(text_lines(path))


def text_lines(path: Path) -> Iterator[str]:
    r"""Yield a file's lines with their line ends, without reading the whole file first.

    Only ``\n`` ends a line: ``str.splitlines`` would also split at U+2028, which is legal inside JSON strings.
    """
    encoding = encoding_of(path)
    if encoding not in STREAMED:
        yield from _decoded_lines(path, encoding)
        return
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise _not_utf8(path, number, offset + error.start, line[error.start]) from None
            if b"\0" in line:
                raise _not_utf8(path, number, offset + line.index(b"\0"), 0)
            yield text.removeprefix("\ufeff") if number == 1 else text
            offset += len(line)


def _decoded_lines(path: Path, encoding: str) -> Iterator[str]:
    """Yield the lines of a file in another encoding than UTF-8, which is decoded whole."""
    try:
        text = path.read_bytes().decode(encoding)
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path}: begins as {encoding.upper()}, but byte {error.start} is not ({error.reason})",
            "save it as UTF-8",
        ) from None
    yield from (line + "\n" for line in text.split("\n")[:-1])
    yield text.rsplit("\n", 1)[-1]


def _not_utf8(path: Path, line: int, offset: int, byte: int) -> BadInput:
    """Return the error for a byte that is not UTF-8, with the likely encoding."""
    likely = "UTF-16 without a mark, or no text at all" if byte == 0 else "often Windows-1252 or Latin-1"
    return BadInput(
        f"{path}:{line}: not UTF-8 (byte {byte:#04x} at offset {offset}; {likely})",
        f"save it as UTF-8, for instance with: iconv -f WINDOWS-1252 -t UTF-8 {shlex.quote(str(path))} > "
        f"{shlex.quote(f'{path.stem}-utf8{path.suffix}')}",
    )


def parquet_rows(path: Path) -> Iterator[Row]:
    """Yield the number of each row, from 1, and its values; BadInput when the file is not Parquet."""
    file = _open_parquet(path)
    names = [field.name for field in file.schema_arrow if _is_text_like(field.type)]
    as_text = {field.name for field in file.schema_arrow if _has_no_json_type(field.type)}
    number = 0
    for batch in _parquet_batches(path, file, names):
        for row in batch.to_pylist():
            number += 1
            yield number, {k: str(v) if k in as_text and v is not None else v for k, v in row.items()}


def count_parquet_rows(path: Path) -> int:
    """Return the number of rows in the file's metadata; no row is read."""
    return int(_open_parquet(path).metadata.num_rows)


def unread_columns(path: Path) -> tuple[str, ...]:
    """Return the columns that are not read: bytes (images, sound) and vectors of numbers."""
    return tuple(field.name for field in _open_parquet(path).schema_arrow if not _is_text_like(field.type))


def _open_parquet(path: Path) -> ParquetFile:
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(path)
    except (ArrowInvalid, OSError) as error:
        raise BadInput(f"{path} is not Parquet, or is damaged: {error}", "write the file again") from None


def _parquet_batches(path: Path, file: ParquetFile, names: list[str]) -> Iterator[Any]:
    from pyarrow import ArrowException

    try:
        yield from file.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=names)
    except (ArrowException, OSError) as error:
        raise BadInput(f"{path} is damaged: {error}", "write the file again") from None


def _is_text_like(kind: DataType) -> bool:
    """Whether values of a column can be part of a text: not bytes, nor lists of numbers."""
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = kind.value_type
        return not (types.is_integer(inner) or types.is_floating(inner)) and _is_text_like(inner)
    return not (types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _has_no_json_type(kind: DataType) -> bool:
    """Whether values become text, because JSON has no such type: times and decimals."""
    from pyarrow import types

    return bool(types.is_temporal(kind) or types.is_decimal(kind))


def _jsonl(path: Path) -> Iterator[Row]:
    for number, line in enumerate(text_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInput(
                f"{path}:{number}: broken JSON: {_reason(error)}", "fix or remove the line"
            ) from None
        yield number, _require_object(path, number, row)


def _json(path: Path) -> Iterator[Row]:
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and error.lineno > 1:  # JSON lines under the name .json
            yield from _jsonl(path)
            return
        raise BadInput(
            f"{path}:{error.lineno}: broken JSON: {error.msg}",
            "correct it there: a comma, quote or bracket is missing or too many",
        ) from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: broken JSON: {_reason(error)}") from None
    if isinstance(value, dict):
        lists = {k: v for k, v in value.items() if isinstance(v, list)}
        if len(lists) != 1:
            content = f"lists under {', '.join(lists)}" if lists else "no list in it"
            raise BadInput(
                f"{path} is an object with {content}, expected a list of rows (or an object that holds one list)",
                "write the rows as one list, or as JSON lines",
            )
        (value,) = lists.values()
    if not isinstance(value, list):
        raise BadInput(f"{path} is {_json_kind(value)}, expected a list of rows")
    for number, row in enumerate(value, start=1):
        yield number, _require_object(path, number, row)


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(MAX_FIELD_BYTES)
    mark = detect_delimiter(path)
    reader = csv.reader(text_lines(path), delimiter=mark, strict=True)
    start, names = 1, []
    try:
        names = [name.strip() for name in next(reader, [])]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise BadInput(f"{path}:1: the column {repeated[0]!r} occurs twice", "rename one of them")
        start = reader.line_num + 1
        for values in reader:
            if values and len(values) != len(names):
                raise BadInput(
                    f"{path}:{start}: the row does not have one value per column "
                    f"({len(values)} values, {len(names)} columns)",
                    f"put values in double quotes with the separator {mark!r} or a line end in them, and write a "
                    "quote in them twice",
                )
            if values:
                yield start, dict(zip(names, values, strict=True))
            start = reader.line_num + 1
    except csv.Error as error:
        record = "".join(islice(text_lines(path), start - 1, reader.line_num))
        place = broken_quote(record, mark, names)
        raise BadInput(
            f"{path}:{start}: broken CSV: {place or error}",
            'write a quote inside a quoted value twice (""), and close every quote; or save the table again as CSV from the '
            "program that made it",
        ) from None


def _require_object(path: Path, number: int, row: object) -> dict[str, Any]:
    """Return a row that is a JSON object of valid Unicode; BadInput otherwise."""
    if not isinstance(row, dict):
        raise BadInput(f"{path}:{number}: a row must be an object, found {_json_kind(row)}")
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError) as error:
        raise BadInput(f"{path}:{number}: {_reason(error)}", "fix or remove the row") from None
    return row


def _reason(error: Exception) -> str:
    """Return what is wrong with a row, without its place in the file."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}"
    if isinstance(error, UnicodeEncodeError):
        return "it has half a surrogate pair, which is no character"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _json_kind(value: object) -> str:
    """Return the JSON type of a value that is no object, in words."""
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


READERS = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": parquet_rows,
}
"""Reader of each file ending."""
