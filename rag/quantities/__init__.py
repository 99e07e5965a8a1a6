"""Quantities as citations, right answers, staleness, conflicts and made rows compare them.

:func:`read_quantities` returns each number, amount, time and date of a text with its unit and its sense; :func:`agree` says
whether one bears out another, :func:`is_derived` whether an amount follows from others.
"""

from rag.quantities.comparing import (
    BY,
    FROM,
    Quantity,
    agree,
    are_among,
    ends_of_range,
    same_amount,
    same_unit,
    unbounded,
)
from rag.quantities.derived import is_derived
from rag.quantities.labels import find_labels
from rag.quantities.phrases import spoken_times
from rag.quantities.reading import bounds, has_amounts, measures, read_quantities

__all__ = [
    "BY",
    "FROM",
    "Quantity",
    "agree",
    "are_among",
    "bounds",
    "ends_of_range",
    "find_labels",
    "has_amounts",
    "is_derived",
    "measures",
    "read_quantities",
    "same_amount",
    "same_unit",
    "spoken_times",
    "unbounded",
]
