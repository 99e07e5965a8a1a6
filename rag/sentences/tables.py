"""Rows of tables as evidence: which row and column a statement is about, and whether it gives the values that stand there.

Read are tables of lines with bars, and lines of fields such as "ferry: Plover; departs: 21:10; days: Friday".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rag.quantities.comparing import Quantity, agree, same_unit
from rag.quantities.units import UNITS
from rag.sentences.clauses import is_covered
from rag.sentences.lexicon import EXCLUSIVE
from rag.sentences.statements import ParsedStatement, read_statement
from rag.text.words import stem, words

MIN_FIELDS = 3
"""Fewest fields of a row of fields; fewer colons and semicolons may be those of a sentence."""
_MIN_LABEL = 0.5
"""Share of the words that tell a row from others which a statement about it has."""
_KEY = re.compile(r"[^\W\d][\w ./()%€$-]{0,39}")
_RULE = re.compile(r"[\s|:+-]+")
_HEAD_END = re.compile(r"\bper\b|[(,]")
_ASIDE = re.compile(r"\([^)]*\)")
_NO = frozenset(("no", "none", "-", "–", "—", "not", "n/a", "never", "0"))
_YES = frozenset(("yes", "included", "x", "✓", "free"))
_AFFIRMED = frozenset(("yes", "x", "✓"))


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a row with the words of its column."""

    header: frozenset[str]
    head: frozenset[str]
    """Words of its column's name before "per" or a bracket."""
    value: ParsedStatement
    text: str

    @property
    def denies(self) -> bool:
        """Whether it is a no."""
        return self.text.strip().lower() in _NO


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table."""

    start: int
    end: int
    cells: tuple[Cell, ...]

    @property
    def words(self) -> frozenset[str]:
        """Words of all its cells."""
        return frozenset[str]().union(*(cell.value.words for cell in self.cells))


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with the same columns."""

    rows: tuple[Row, ...]

    @property
    def headers(self) -> frozenset[str]:
        """Words of all columns."""
        return frozenset[str]().union(*(cell.header for row in self.rows for cell in row.cells))


def read_tables(text: str) -> tuple[Table, ...]:
    """Return the tables of a text."""
    lines = list(re.finditer(r"[^\n]+", text))
    tables: list[Table] = []
    at = 0
    while at < len(lines):
        end = at
        while end < len(lines) and len(_cells(lines[end].group())) == len(_cells(lines[at].group())) > 1:
            end += 1
        if end - at > 1:
            header = _cells(lines[at].group())
            body = [line for line in lines[at + 1 : end] if not _RULE.fullmatch(line.group())]
            rows = tuple(_row(line, header, _cells(line.group())) for line in body)
            tables += [Table(rows)] if rows else []
        at = max(end, at + 1)
    fields = tuple(row for line in lines if (row := _field_row(line)) is not None)
    return (*tables, *([Table(fields)] if fields else []))


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")] if "|" in line else []


def _row(line: re.Match[str], headers: Sequence[str], cells: Sequence[str]) -> Row:
    read = tuple(
        Cell(
            frozenset(words(header)),
            frozenset(words(_HEAD_END.split(header)[0])),
            read_statement(cell or "-"),
            cell,
        )
        for header, cell in zip(headers, cells, strict=True)
    )
    return Row(line.start(), line.end(), read)


def _field_row(line: re.Match[str]) -> Row | None:
    """Return a row of fields, None for another line."""
    parts = [part.partition(": ") for part in line.group().strip().split("; ")]
    if len(parts) < MIN_FIELDS or not all(value.strip() and _KEY.fullmatch(key) for key, _, value in parts):
        return None
    headers = [key.replace("_", " ") for key, _, _ in parts]
    return _row(line, headers, [value.strip() for _, _, value in parts])


def stating_row(statement: ParsedStatement, table: Table, above: frozenset[str]) -> Row | None:
    """Return the row of a table that states what a statement says, None where none does.

    Args:
        statement: the statement.
        table: the table.
        above: words of title and heading.
    """
    claimed = statement.content | statement.words
    scores = [_label_share(row, table, statement) for row in table.rows]
    best = max(scores, default=0.0)
    for row, score in zip(table.rows, scores, strict=True):
        if score >= _MIN_LABEL and score == best and _states(statement, claimed, row, table, above):
            return row
    return None


def _label_share(row: Row, table: Table, statement: ParsedStatement) -> float:
    """Return the share of what tells a row from the others, in its first cell or another, that a statement has."""
    return max((_named(row, n, table, statement) for n in range(len(row.cells))), default=0.0)


def _named(row: Row, at: int, table: Table, statement: ParsedStatement) -> float:
    own = _label(row.cells[at])
    others = [_label(other.cells[at]) for other in table.rows if other is not row and len(other.cells) > at]
    if at and (own in others or not own.content or own.quantities):
        return 0.0
    common = frozenset.intersection(*(other.content for other in others)) if others else frozenset()
    content = own.content - common or own.content
    amounts = own.quantities
    known = sum(is_covered(word, statement.words | statement.content) for word in content)
    known += sum(any(_same_amount(q, amount) for q in statement.quantities) for amount in amounts)
    size = len(content) + len(amounts)
    share = known / size if size else 0.0
    return share if at == 0 else min(share, 0.9)


def _label(cell: Cell) -> ParsedStatement:
    text = _ASIDE.sub("", cell.text).strip()
    return read_statement(text) if text else cell.value


def _states(
    statement: ParsedStatement, claimed: frozenset[str], row: Row, table: Table, above: frozenset[str]
) -> bool:
    own, headers = row.words, table.headers
    for other in table.rows:
        strange = other.words - own - headers - above
        if other is not row and any(
            word in strange and not is_covered(word, own) for word in statement.content
        ):
            return False
    text = " ".join(cell.text for cell in row.cells)
    if not {word for word in statement.words if word.isdigit()} <= {*words(text), *headers, *above}:
        return False
    if not all(_cell_states(q, row, claimed, above) for q in statement.quantities):
        return False
    if any(_excluded(word, row) for word in statement.content):
        return False
    if not statement.quantities and sum(
        is_covered(w, own | headers | above) for w in statement.content
    ) < 0.5 * len(statement.content):
        return False
    return _same_sense(statement, row)


def _excluded(word: str, row: Row) -> bool:
    """Return whether a row has another word of a series, such as the days of the week, than the claim."""
    return not is_covered(word, row.words) and not EXCLUSIVE.get(word, frozenset()).isdisjoint(
        frozenset[str]().union(*(cell.value.content for cell in row.cells))
    )


def _same_sense(statement: ParsedStatement, row: Row) -> bool:
    """Return whether a statement denies what a cell with "no" or "none" denies, and nothing else."""
    for clause in statement.clauses:
        content = clause.content | clause.subject
        about = [cell for cell in row.cells[1:] if any(is_covered(word, cell.header) for word in content)]
        plain = [cell for cell in about if cell.denies or cell.text.strip().lower() in _YES]
        if plain and not clause.quantities:
            if clause.negated != any(cell.denies for cell in plain):
                return False
        elif (
            clause.negated
            and not any(cell.denies for cell in row.cells)
            and not any(own.negated for cell in row.cells for own in cell.value.clauses)
        ):
            return False
    return True


def _cell_states(quantity: Quantity, row: Row, claimed: frozenset[str], above: frozenset[str]) -> bool:
    """Return whether a cell of a row has a quantity, and the claim means its column."""
    return any(
        _means_column(quantity, cell, row, claimed, above)
        for cell in row.cells
        if any(_same_amount(quantity, other) for other in cell.value.quantities)
    )


def _means_column(
    quantity: Quantity, cell: Cell, row: Row, claimed: frozenset[str], above: frozenset[str]
) -> bool:
    """Return whether a claim does not mean another column with values of this kind."""
    if cell is row.cells[0]:
        return True
    beside = " ".join(other.text for other in row.cells)
    priced = {UNITS.get(word, word) for word in cell.header | frozenset(words(beside)) | above}
    priced |= {stem(word) for word in priced}
    if quantity.per and not any(is_covered(word, frozenset(priced)) for word in quantity.per):
        return False
    rivals = [
        other
        for other in row.cells[1:]
        if other is not cell
        and any(_rivals(quantity, q) for q in other.value.quantities)
        and not any(_same_amount(quantity, q) for q in other.value.quantities)
    ]
    noun = frozenset({quantity.counted or quantity.unit} - {""})
    if noun and _heads(cell, noun) != any(_heads(other, noun) for other in rivals):
        return _heads(cell, noun)
    own = _known(cell.header, claimed, quantity)
    if not rivals:
        return (
            own > 0
            or bool(quantity.unit)
            or quantity.timed
            or not quantity.counted
            or len(cell.value.content) > 0
        )
    theirs = max(_known(other.header - cell.header, claimed, quantity) for other in rivals)
    mine = _known(
        cell.header - frozenset[str]().union(*(other.header for other in rivals)), claimed, quantity
    )
    if mine != theirs:
        return mine > theirs
    return mine > 0 or all(row.cells.index(cell) < row.cells.index(other) for other in rivals)


def _heads(cell: Cell, noun: frozenset[str]) -> bool:
    """Return whether a column is headed by what a quantity counts: "Weeks", not "Lessons per week"."""
    return any(is_covered(word, cell.head) for word in noun)


def _rivals(quantity: Quantity, other: Quantity) -> bool:
    return quantity.timed == other.timed and (
        (quantity.unit == other.unit) if quantity.unit and other.unit else same_unit(quantity, other)
    )


def _known(header: frozenset[str], claimed: frozenset[str], quantity: Quantity) -> int:
    units = {quantity.unit, f"{quantity.unit}s", quantity.counted} - {"", "s"}
    return sum(
        is_covered(word, claimed) or any(is_covered(word, frozenset((u,))) for u in units) for word in header
    )


def _same_amount(claimed: Quantity, own: Quantity) -> bool:
    """Return whether a cell has the claimed amount; bound, year and what it is per may stand in the column."""
    plain = replace(own, year="", per=frozenset(), counted="")
    bare = replace(
        claimed,
        bound=own.bound,
        year="",
        per=frozenset(),
        change="",
        counted="" if not own.unit else claimed.counted,
    )
    return agree(bare, plain)
