"""Build the documentation into a folder: every link, anchor and page of the navigation is checked, nothing is remote.

python scripts/site.py OUT [--docs FOLDER]  exit 1 when anything is wrong, each thing named
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FETCHED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data"}
"""What a browser fetches by itself when it opens a page."""
REMOTE = re.compile(r"(?:https?:)?//", re.IGNORECASE)
IN_STYLE = re.compile(r"(?:url\(|@import)\s*['\"]?\s*((?:https?:)?//[^'\")\s]+)", re.IGNORECASE)


class Fetches(HTMLParser):
    """Collects what a page fetches, and its pictures without a description."""

    def __init__(self) -> None:
        """Start with nothing."""
        super().__init__()
        self.remote: list[str] = []
        self.undescribed: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one tag."""
        values = dict(attrs)
        target = values.get(FETCHED.get(tag, "")) or ""
        if REMOTE.match(target):
            self.remote.append(target)
        if tag == "img" and not values.get("alt"):
            self.undescribed.append(target)


def wrong(site: Path) -> list[str]:
    """Return what is remote in a built site, and pictures without a description, a line each."""
    found = []
    pages = sorted(site.rglob("*.html"))
    for page in pages:
        seen = Fetches()
        seen.feed(page.read_text("utf-8"))
        found += [f"{page.name}: fetches {target}" for target in seen.remote]
        found += [f"{page.name}: no description of {target}" for target in seen.undescribed]
    for style in sorted(site.rglob("*.css")):
        found += [f"{style.name}: fetches {target}" for target in IN_STYLE.findall(style.read_text("utf-8"))]
    return found if pages else ["no page was built"]


def main() -> int:
    """Build and check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="where the site goes")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="the folder of the pages")
    given = parser.parse_args()
    strict = ["--fail-on-warning", "--keep-going", "--nitpicky", "--fresh-env", "--quiet"]
    with tempfile.TemporaryDirectory() as work:
        build = [sys.executable, "-m", "sphinx", "-b", "html", *strict, "-d", work, given.docs, given.out]
        if code := subprocess.run(build, check=False).returncode:
            return code
    lines = wrong(given.out)
    print("\n".join(lines) or f"{len(list(given.out.glob('*.html')))} pages in {given.out}")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
