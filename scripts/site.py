"""Build the documentation into a folder and check it: links, anchors, the navigation, and that nothing remote is loaded.

python scripts/site.py OUT [--docs FOLDER]  exit 1 when anything is wrong, with a line for each problem
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
"""Elements and attributes that a browser loads by itself when it opens a page."""
REMOTE = re.compile(r"(?:https?:)?//", re.IGNORECASE)
IN_STYLE = re.compile(r"(?:url\(|@import)\s*['\"]?\s*((?:https?:)?//[^'\")\s]+)", re.IGNORECASE)


class Fetches(HTMLParser):
    """Collects what a page loads from elsewhere, and its images without a description."""

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


def site_problems(site: Path) -> list[str]:
    """Return a line for each remote resource of a built site, and for each image without a description."""
    problems = []
    pages = sorted(site.rglob("*.html"))
    for page in pages:
        fetches = Fetches()
        fetches.feed(page.read_text("utf-8"))
        problems += [f"{page.name}: fetches {target}" for target in fetches.remote]
        problems += [f"{page.name}: no description of {target}" for target in fetches.undescribed]
    for style in sorted(site.rglob("*.css")):
        problems += [
            f"{style.name}: fetches {target}" for target in IN_STYLE.findall(style.read_text("utf-8"))
        ]
    return problems if pages else ["no page was built"]


def main() -> int:
    """Build and check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="where the site goes")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="the folder of the pages")
    arguments = parser.parse_args()
    strict = ["--fail-on-warning", "--keep-going", "--nitpicky", "--fresh-env", "--quiet"]
    with tempfile.TemporaryDirectory() as work:
        build = [
            sys.executable,
            "-m",
            "sphinx",
            "-b",
            "html",
            *strict,
            "-d",
            work,
            arguments.docs,
            arguments.out,
        ]
        if code := subprocess.run(build, check=False).returncode:
            return code
    lines = site_problems(arguments.out)
    print("\n".join(lines) or f"{len(list(arguments.out.glob('*.html')))} pages in {arguments.out}")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
