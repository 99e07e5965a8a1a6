"""Write the table of model families into docs/models.md, from the contracts that the tests check.

    python scripts/families.py            write the table (several minutes on two cores)
    python scripts/families.py --check    compare it with the file; exit code 1 when they differ

One family with ``--only NAME`` is measured and printed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]  # measure the source tree that this script is in
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from scripts.pages import with_parts  # noqa: E402
from tests.families import FAMILIES, MISSING, Family  # noqa: E402
from tests.runners.families.contract import table_row, training_contract  # noqa: E402

PAGE = ROOT / "docs" / "models.md"
HEADER = (
    "| family | what sets it apart | train | path | decode | export |\n| --- | --- | --- | --- | --- | --- |"
)


def decode_cell(family: Family) -> str:
    """Return the table's cell of decoding, with what is wrong where an answer is not transformers'."""
    try:
        from tests.runners.families.decoding import decode_contract
    except ImportError:
        return "not measured"
    record = decode_contract(family.name)
    wrong = "" if record.right else ", WRONG"
    return " ".join(
        f"{record.path}{wrong}{f': {record.reason}' if record.reason else ''}".replace("|", "/").split()
    )


def measured_row(family: Family) -> str:
    """Return a family's row, measured now."""
    with tempfile.TemporaryDirectory() as folder:
        records = training_contract(family, Path(folder))
    return table_row(family, records, decode_cell(family))


def families_part(rows: list[str]) -> list[str]:
    """Return the generated part of the page: a row for each family, and the families without code."""
    missing = ", ".join(f"`{name}`" for name in MISSING)
    after = f"The transformers that this was measured with has no code of its own for: {missing}."
    return [*HEADER.splitlines(), *rows, "", after]


def main() -> int:
    """Measure, then write, compare or print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare with the file instead of writing it")
    parser.add_argument("--only", help="measure this family alone and print its row")
    options = parser.parse_args()
    chosen = [family for family in FAMILIES if options.only in (None, family.name)]
    rows = []
    for family in chosen:
        rows.append(measured_row(family))
        print(rows[-1], file=sys.stderr, flush=True)
    if options.only:
        return 0 if rows else 1
    before = PAGE.read_text("utf-8")
    text = with_parts(before, {"families": lambda: families_part(rows)})
    if options.check:
        same = before == text
        print(
            "docs/models.md is as measured" if same else "docs/models.md differs: python scripts/families.py"
        )
        return 0 if same else 1
    PAGE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
