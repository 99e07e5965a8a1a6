"""Rewrite the README's map of the house from the first sentence of every module.

python scripts/map.py          rewrite the block
python scripts/map.py --check  exit 1 when it is not current
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("advisor", "runners", "rag")
BLOCK = re.compile(r"(<!-- map[^>]*-->\n```text\n).*?(\n```\n<!-- /map -->)", re.DOTALL)
COLUMN = 24


def first_sentence(path: Path) -> str:
    """Return the first sentence of a module's docstring, on one line."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.?])\s+(?=[A-Z`])", text)[0] or "(no docstring)"


def lines_of(folder: Path, depth: int = 0) -> list[str]:
    """Return the lines of a folder: itself, its files by name, then its packages."""
    indent = "  " * depth
    lines = [f"{indent}{folder.name}/"]
    for path in sorted(folder.glob("*.py")):
        lines.append(f"{f'{indent}  {path.name}':<{COLUMN}} {first_sentence(path)}")
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        if any(inner.glob("*.py")):
            lines += lines_of(inner, depth + 1)
    return lines


def rewrite(readme: str) -> str:
    """Return the README's text with a current map."""
    house = "\n".join(line for package in PACKAGES for line in lines_of(ROOT / package))
    text, count = BLOCK.subn(lambda found: found[1] + house + found[2], readme)
    if count != 1:
        raise SystemExit("README.md has no block between <!-- map --> and <!-- /map -->")
    return text


def main() -> int:
    """Rewrite or check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only look")
    page = ROOT / "README.md"
    old = page.read_text("utf-8")
    new = rewrite(old)
    if parser.parse_args().check:
        if old != new:
            print(
                "README.md: the map of the house is not current; run: python scripts/map.py", file=sys.stderr
            )
        return int(old != new)
    page.write_text(new, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
