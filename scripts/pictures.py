"""Make the pictures of the documentation from a finished run of the example: what terminal and browser show.

python scripts/pictures.py RUN [--out FOLDER]  needs Chromium for the pictures of report.html
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 96
COLOURS = 48
FONT = re.compile(r"@font-face\s*\{.*?\}", re.DOTALL)
"""Rich's drawings name a web font; without it the reader's own is used, at the same widths."""


def shot(command: list[str], folder: Path, title: str, first: str, last: str, out: Path) -> None:
    """Draw what a command prints, from the line that holds ``first`` to the one before ``last`` ("" is the end)."""
    env = {
        **os.environ,
        "FORCE_COLOR": "1",
        "COLUMNS": str(WIDTH),
        "PYTHONPATH": str(ROOT),
        "TUNEWISE_HISTORY": "",
    }
    env.pop("NO_COLOR", None)
    line = [sys.executable, "-P", "-m", "advisor", *command]
    done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, check=True)
    lines = [Text.from_ansi(text) for text in done.stdout.splitlines()]
    begin = next(n for n, text in enumerate(lines) if first in text.plain)
    end = next((n for n, text in enumerate(lines) if last and last in text.plain), len(lines))
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(
            record=True, width=WIDTH, file=nowhere, force_terminal=True, color_system="truecolor"
        )
        for text in lines[begin:end]:
            console.print(text)
        drawn = console.export_svg(title=title, theme=DEFAULT_TERMINAL_THEME, unique_id=out.stem)
    out.write_text(FONT.sub("", drawn), "utf-8")


def page(report: Path, part: str, hidden: str, size: str, out: Path) -> None:
    """Photograph a part of report.html: ``hidden`` selects what is left out, ``part`` the address's end."""
    program = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
    if program is None:
        raise SystemExit("needs Chromium, as in Debian's package of that name")
    text = report.read_text("utf-8")
    # The page's own policy lets no style in; the copy that is photographed has none.
    text = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", text)
    if hidden:
        text = text.replace("</head>", f"<style>{hidden} {{ display: none !important }}</style></head>")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "report.html"
        copy.write_text(text, "utf-8")
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--window-size={size}",
        ]
        where = [f"--user-data-dir={folder}/home", f"--screenshot={out.resolve()}", copy.as_uri() + part]
        subprocess.run([program, *flags, *where], capture_output=True, check=True, timeout=300)
    Image.open(out).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(out, optimize=True)


def main() -> None:
    """Make all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run of the example")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures", help="where they go")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    run = given.run.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "advisor" / "harbor_desk", folder / "harbor-desk")
        tutorial = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
        advise = re.search(r"^tunewise (plan --yes(?:.*\\\n)*.*)$", tutorial, re.MULTILINE)
        assert advise, "the tutorial has no `tunewise plan --yes`"
        command = shlex.split(advise[1].replace("\\\n", " "))
        out = given.out
        shot(command, folder, "tunewise plan", "╭", "Break-even", out / "recommendation.svg")
        title = "tunewise report runs/harbor-desk"
        shot(["report", str(run)], folder, title, "combined 95 %", "After the update", out / "trial.svg")
    report = run / "report.html"
    page(report, "", "", "1000,720", out / "report.png")
    others = "header, nav, .verdict, main > section:not(#answers), #q-1, .question:nth-of-type(n+5)"
    page(report, "#q-2", others, "1000,880", out / "answers.png")


if __name__ == "__main__":
    main()
