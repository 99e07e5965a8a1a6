"""Has anything changed that users of tunewise rely on? Recorded values of the program, observed anew and compared.

    python scripts/contract.py check [PART...]                        observe, compare; exit 1 where anything differs
    python scripts/contract.py record [PART...] [--because SENTENCE]  observe, and write tests/contract/PART.json

The parts:

    advice   the advice on published cases, and plans drafted for some forty situations
    surface  verbs and flags, the keys of JSON output, exit codes and error messages
    judged   answers, citations and refusals that are judged by code
    search   retrieval

``check`` prints each key that differs with the old and the new value, and one line for each part. A value of more
than some 200 characters is stored as a hash: ``--out FOLDER`` also writes every observed value in full to
FOLDER/PART.json, so that those of two commits can be compared. Numbers are equal to 1e-9 relative.

``record`` refuses to run in a checkout with other changes than in tests/contract, so that a record is always that of
a commit: commit the change first, then the record. Where it changes an existing record, it wants ``--because`` with
the sentence of the issue that asks for the change, and prints every key with its old and new value.

Some values need the public cases in the folder that the environment variable TUNEWISE_SHARED names. Without it
``check`` leaves them out and says how many; ``record`` refuses.

Each part is a module ``scripts.contracts.PART`` with ``PART``, its name, and ``observe()``, which returns the values
by key: flat keys that begin with the part's name, such as "advice/case/NAME/choice". A key with a part "shared", or
that begins with a word of the module's optional tuple ``NEEDS_SHARED``, needs the public cases. A value whose key
begins with a word of the optional tuple ``VERBATIM`` is stored in full, however long it is.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]  # observe the source tree that this script is in

from scripts.contracts.common import (  # noqa: E402
    RECORDS,
    SHARED_ENV,
    Difference,
    differences,
    read_record,
    shared_folder,
    stored,
    write_record,
)

PARTS = ("advice", "surface", "judged", "search")
REFUSED = 2


@dataclass(frozen=True, slots=True)
class Observed:
    """What one part is now, beside its record."""

    part: str
    values: Mapping[str, Any]
    """As they are stored."""
    full: Mapping[str, Any]
    recorded: Mapping[str, Any] | None
    left_out: int
    """Keys of the record that need the public cases, which are not here."""
    seconds: float

    @property
    def path(self) -> Path:
        """The file of the record."""
        return record_path(self.part)

    @property
    def changes(self) -> list[Difference]:
        """What differs from the record; all is new where there is none."""
        return differences(self.recorded or {}, self.values)


def record_path(part: str) -> Path:
    """Return the file of a part's record."""
    return RECORDS / f"{part}.json"


def load_part(part: str) -> ModuleType | None:
    """Return the module of a part, None where this checkout has none."""
    name = f"scripts.contracts.{part}"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def observe(module: ModuleType) -> Observed:
    """Observe a part, and read its record."""
    started = time.monotonic()
    full: dict[str, Any] = module.observe()
    strange = [key for key in full if not key.startswith(f"{module.PART}/")]
    if strange:
        raise SystemExit(f"contract: the keys of part {module.PART} must begin with its name: {strange[0]}")
    verbatim, shared = (tuple(getattr(module, name, ())) for name in ("VERBATIM", "NEEDS_SHARED"))
    values = {key: stored(value, key.startswith(verbatim)) for key, value in full.items()}
    recorded, left_out = read_record(record_path(module.PART)), 0
    if recorded is not None and shared_folder() is None:
        here = {k: v for k, v in recorded.items() if "/shared/" not in k and not k.startswith(shared)}
        recorded, left_out = here, len(recorded) - len(here)
        values = {k: v for k, v in values.items() if "/shared/" not in k and not k.startswith(shared)}
    return Observed(module.PART, values, full, recorded, left_out, time.monotonic() - started)


def print_changes(changes: Sequence[Difference]) -> None:
    """Print each key with its old and new value."""
    for change in changes:
        print(f"{change.key}\n  old: {change.old}\n  new: {change.new}")


def check(modules: Sequence[ModuleType], out: Path | None) -> int:
    """Compare each part with its record; return the exit code."""
    code = 0
    for module in modules:
        part = observe(module)
        if out:
            write_record(out / f"{part.part}.json", part.full)
        if part.recorded is None:
            print(f"{part.part}: no record; make it with: python scripts/contract.py record {part.part}")
            code = 1
            continue
        changes = part.changes
        print_changes(changes)
        left = f", {part.left_out} left out ({SHARED_ENV} is not set)" if part.left_out else ""
        outcome = f"{len(changes)} differ" if changes else "as recorded"
        print(f"{part.part}: {len(part.values)} values, {outcome}{left}, {part.seconds:.0f} s", flush=True)
        code = 1 if changes else code
    return code


def record(modules: Sequence[ModuleType], because: str, out: Path | None) -> int:
    """Write the records of these parts; return the exit code."""
    if other := changed_files():
        print(f"contract: commit first; {other[0]} is changed (and {len(other) - 1} more)", file=sys.stderr)
        return REFUSED
    if shared_folder() is None:
        print(f"contract: a record needs the public cases: set {SHARED_ENV}", file=sys.stderr)
        return REFUSED
    parts = [observe(module) for module in modules]
    for part in parts if out else ():
        write_record((out or Path()) / f"{part.part}.json", part.full)
    changed = [part for part in parts if part.recorded is not None and part.changes]
    for part in changed:
        print_changes(part.changes)
    if changed and not because.strip():
        names = ", ".join(part.part for part in changed)
        print(
            f"contract: the record of {names} would change: --because 'SENTENCE OF THE ISSUE'",
            file=sys.stderr,
        )
        return REFUSED
    for part in parts:
        write_record(part.path, part.values)
        told = f", {len(part.changes)} changed because: {because}" if part in changed else ""
        print(f"{part.part}: {len(part.values)} values recorded{told}, {part.seconds:.0f} s")
    return 0


def changed_files() -> list[str]:
    """Return the files of this checkout that differ from the commit, those of the records left out."""
    status = ("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=all")
    lines = subprocess.run(status, capture_output=True, text=True, check=True).stdout.splitlines()
    own = f"{RECORDS.relative_to(ROOT).as_posix()}/"
    return [line[3:] for line in lines if not line[3:].strip('"').startswith(own)]


def main() -> int:
    """Read the command line, observe, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0],
        epilog="What is in a part, and when it may be recorded anew, stands at the top of scripts/contract.py.",
    )
    parser.add_argument("action", choices=("record", "check"))
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all by default")
    parser.add_argument(
        "--because", default="", metavar="SENTENCE", help="record: the sentence of the issue that asks for it"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="also write every value in full")
    given = parser.parse_args()
    if unknown := [part for part in given.parts if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}; the parts: {', '.join(PARTS)}")
    modules, missing = [], []
    for part in given.parts or PARTS:
        module = load_part(part)
        modules.append(module) if module else missing.append(part)  # type: ignore[func-returns-value]
    code = check(modules, given.out) if given.action == "check" else record(modules, given.because, given.out)
    for part in missing:
        print(f"{part}: not in this checkout: there is no scripts/contracts/{part}.py")
    return code or bool(missing)


if __name__ == "__main__":
    sys.exit(main())
