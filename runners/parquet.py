"""Rows of a Parquet file, read in batches; columns that cannot be part of a text are not read at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.errors import BadInput

if TYPE_CHECKING:
    from pyarrow import DataType
    from pyarrow.parquet import ParquetFile

BATCH = 1024
"""Rows in memory at once, beside those the reader keeps."""


def rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each row's number, from 1, and its values; raise BadInput when the file is no Parquet."""
    file = _open(path)
    names = [field.name for field in file.schema_arrow if _readable(field.type)]
    odd = {field.name for field in file.schema_arrow if _printed(field.type)}
    number = 0
    for batch in _batches(path, file, names):
        for row in batch.to_pylist():
            number += 1
            yield number, {k: str(v) if k in odd and v is not None else v for k, v in row.items()}


def count(path: Path) -> int:
    """Return how many rows the file says that it holds, reading none."""
    return int(_open(path).metadata.num_rows)


def unread(path: Path) -> tuple[str, ...]:
    """Return the columns that are not read: bytes (images, sound) and vectors of numbers."""
    return tuple(field.name for field in _open(path).schema_arrow if not _readable(field.type))


def _open(path: Path) -> ParquetFile:
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(path)
    except (ArrowInvalid, OSError) as error:
        raise BadInput(f"{path} is not Parquet, or is damaged: {error}", "write the file again") from None


def _batches(path: Path, file: ParquetFile, names: list[str]) -> Iterator[Any]:
    from pyarrow import ArrowException

    try:
        yield from file.iter_batches(batch_size=BATCH, columns=names)
    except (ArrowException, OSError) as error:
        raise BadInput(f"{path} is damaged: {error}", "write the file again") from None


def _readable(kind: DataType) -> bool:
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = kind.value_type
        return not (types.is_integer(inner) or types.is_floating(inner)) and _readable(inner)
    return not (types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _printed(kind: DataType) -> bool:
    """Whether values are kept as text, because JSON has no such type: times and decimals."""
    from pyarrow import types

    return bool(types.is_temporal(kind) or types.is_decimal(kind))
