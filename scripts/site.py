"""Build the documentation into a folder and check it: links, anchors, the navigation, and that nothing remote is loaded.

Beside the pages go their Markdown sources and ``llms.txt``, which lists them for language models (llmstxt.org).

python scripts/site.py OUT [--docs FOLDER]  exit 1 when anything is wrong, with a line for each problem
"""

from __future__ import annotations

import argparse
import re
import shutil
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


OPTIONAL = ("architecture", "accuracy")
"""Pages that ``llms.txt`` lists below "Optional": a reader with little room can leave them out."""
LINK = re.compile(r"\[([^\]]+)\]\(([\w-]+\.md)[^)]*\)")


def llms_text(docs: Path) -> str:
    """Return ``llms.txt``: the title and first paragraph of the index, and its pages below the captions of the navigation.

    What is said of a page is the row of the index that leads to it, or else the page's first sentence.
    """
    index = (docs / "index.md").read_text("utf-8")
    title, *rest = index.strip().split("\n\n")
    summary = " ".join(next((part for part in rest if part[:1].isalpha()), "").split())
    wanted = {
        name: row.split("|")[1].strip()
        for row in re.findall(r"^\|.*\|$", index, re.MULTILINE)
        for _, name in LINK.findall(row)
    }
    sections: dict[str, list[str]] = {}
    for tree in re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL):
        caption = re.search(r"^:caption: (.+)$", tree, re.MULTILINE)
        for name in re.findall(r"^[\w-]+$", tree, re.MULTILINE):
            section = "Optional" if name in OPTIONAL else caption[1] if caption else "Pages"
            text = (docs / f"{name}.md").read_text("utf-8")
            heading = re.search(r"^# (.+)$", text, re.MULTILINE)
            what = wanted.get(f"{name}.md") or first_sentence(text)
            line = f"- [{heading[1] if heading else name}]({name}.md)" + (f": {what}" if what else "")
            sections.setdefault(section, []).append(line)
    ordered = sorted(sections, key=lambda section: section == "Optional")
    blocks = ["\n".join([f"## {section}", "", *sections[section]]) for section in ordered]
    return "\n\n".join([title, *([f"> {summary}"] if summary else []), *blocks]) + "\n"


def first_sentence(page: str) -> str:
    """Return the first sentence of a page's first paragraph, links replaced by their text; "" for a page without."""
    for part in page.split("\n\n"):
        if part[:1].isalpha() or part[:1] in "`*":
            text = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", " ".join(part.split()))
            return re.split(r"(?<=[.!?]) ", text)[0]
    return ""


def llms_problems(site: Path) -> list[str]:
    """Return a line for each fault of ``llms.txt``: its form, and links that lead to no file of the site."""
    text = (site / "llms.txt").read_text("utf-8")
    lines = [line for line in text.splitlines() if line]
    problems = [] if lines and lines[0].startswith("# ") else ["llms.txt: no title"]
    if len([line for line in lines if line.startswith("# ")]) != 1:
        problems.append("llms.txt: more or fewer than one title")
    for line in lines:
        if line.startswith("- ") and not re.fullmatch(r"- \[[^\]]+\]\([\w-]+\.md\)(: .+)?", line):
            problems.append(f"llms.txt: not a link with a note: {line}")
    problems += [f"llms.txt: no {name}" for _, name in LINK.findall(text) if not (site / name).is_file()]
    return problems


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
    for page in arguments.docs.glob("*.md"):
        shutil.copy(page, arguments.out)
    (arguments.out / "llms.txt").write_text(llms_text(arguments.docs), "utf-8")
    lines = site_problems(arguments.out) + llms_problems(arguments.out)
    print("\n".join(lines) or f"{len(list(arguments.out.glob('*.html')))} pages in {arguments.out}")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
