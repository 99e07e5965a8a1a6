"""Make the pictures of the documentation from a finished run of the example: terminal output and pages in a browser.

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
"""Web font that rich's SVG names; without it the reader's own font is used, at the same widths."""


def draw_output(command: list[str], folder: Path, title: str, first: str, last: str, out: Path) -> None:
    """Draw the output of a command as SVG.

    Args:
        command: arguments of tunewise.
        folder: working folder.
        title: title of the drawn window.
        first: the drawing starts at the first line that contains this.
        last: the drawing ends before the first line that contains this; "" for the end.
        out: the SVG to write.
    """
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
    with Path(os.devnull).open("w", encoding="utf-8") as null_device:
        console = Console(
            record=True, width=WIDTH, file=null_device, force_terminal=True, color_system="truecolor"
        )
        for text in lines[begin:end]:
            console.print(text)
        svg = console.export_svg(title=title, theme=DEFAULT_TERMINAL_THEME, unique_id=out.stem)
    out.write_text(FONT.sub("", svg), "utf-8")


def draw_page(report: Path, part: str, hidden: str, size: str, out: Path) -> None:
    """Take a picture of a part of report.html.

    Args:
        report: the draw_page.
        part: the fragment of the address.
        hidden: CSS selector of what to leave out.
        size: width and height of the window in pixels.
        out: the PNG to write.
    """
    program = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
    if program is None:
        raise SystemExit("needs Chromium, as in Debian's package of that name")
    text = report.read_text("utf-8")
    # The policy of the draw_page forbids further styles; the copy for the picture has no policy.
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
        target = [f"--user-data-dir={folder}/home", f"--screenshot={out.resolve()}", copy.as_uri() + part]
        subprocess.run([program, *flags, *target], capture_output=True, check=True, timeout=300)
    Image.open(out).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(out, optimize=True)


def main() -> None:
    """Make all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run of the example")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures", help="where they go")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    run = arguments.run.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "advisor" / "harbor_desk", folder / "harbor-desk")
        tutorial = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
        plan_command = re.search(r"^tunewise (plan --yes(?:.*\\\n)*.*)$", tutorial, re.MULTILINE)
        assert plan_command, "the tutorial has no `tunewise plan --yes`"
        command = shlex.split(plan_command[1].replace("\\\n", " "))
        out = arguments.out
        draw_output(command, folder, "tunewise plan", "╭", "Cost", out / "recommendation.svg")
        title = "tunewise report runs/harbor-desk"
        draw_output(["report", str(run)], folder, title, "Task:", "After the update", out / "trial.svg")
    report = run / "report.html"
    draw_page(report, "", "", "1000,720", out / "report.png")
    others = "header, nav, .verdict, main > section:not(#answers), #q-1, .question:nth-of-type(n+5)"
    draw_page(report, "#q-2", others, "1000,880", out / "answers.png")


if __name__ == "__main__":
    main()
