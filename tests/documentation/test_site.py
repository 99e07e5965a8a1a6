"""The strict build of the documentation fails on broken links, pages outside the navigation and remote files."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.limits import HANG_S

INDEX = """# Pages

[another page](other.md#its-part) ![a dot](dot.svg)

```{toctree}
other
```
"""
OTHER = "# Other\n\n## Its part\n\nText.\n"
DOT = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle cx="4" cy="4" r="4"/></svg>\n'


def build_site(root: Path, folder: Path, **changed: str) -> subprocess.CompletedProcess[str]:
    """Build a site of two pages with the real configuration; `changed` changes or adds files."""
    docs = folder / "docs"
    docs.mkdir()
    shutil.copy(root / "docs" / "conf.py", docs)
    for name, text in {"index_md": INDEX, "other_md": OTHER, "dot_svg": DOT, **changed}.items():
        (docs / name.replace("_", ".")).write_text(text, "utf-8")
    command: list[str | Path] = [sys.executable, "scripts/site.py", folder / "site", "--docs", docs]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=HANG_S, check=False)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, ""),
        (
            {
                "index_md": INDEX.replace("other.md#its-part", "nothing.md").replace("dot.svg", "gone.svg"),
                "other_md": OTHER + "\n[no such part](index.md#no-such-part)\n",
                "orphan_md": "# Orphan\n",
            },
            "nothing.md gone.svg no-such-part orphan.md",
        ),
        (
            {"other_md": OTHER + '\n<img src="https://example.com/a.png" alt="far">\n\n![](dot.svg)\n'},
            "fetches https://example.com/a.png; no description of",
        ),
    ],
    ids=["valid", "broken", "remote"],
)
def test_build_fails_on_broken_links_and_remote_files(
    root: Path, tmp_path: Path, changed: dict[str, str], message: str
) -> None:
    done = build_site(root, tmp_path, **changed)
    text = done.stdout + done.stderr
    assert done.returncode == int(bool(message)), text
    for part in message.split("; ") if ";" in message else message.split():
        assert part in text


def test_site_lists_its_pages_for_language_models(root: Path, tmp_path: Path) -> None:
    """llms.txt has a title, a summary and every page with what it is for; the Markdown pages lie beside it."""
    spec = importlib.util.spec_from_file_location("site_script", root / "scripts" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    done = build_site(
        root, tmp_path, other_md="# Other\n\n## Its part\n\nText of [a page](index.md). More.\n"
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "site" / "llms.txt").read_text("utf-8")
    assert text == "# Pages\n\n## Pages\n\n- [Other](other.md): Text of a page.\n"
    assert (tmp_path / "site" / "other.md").is_file()
    real = script.llms_text(root / "docs")
    head, summary, *_ = real.split("\n\n")
    assert (head, summary[:2]) == ("# tunewise", "> ")
    listed = {line.partition("](")[2].partition(")")[0] for line in real.splitlines() if line[:2] == "- "}
    assert listed == {page.name for page in (root / "docs").glob("*.md")} - {"index.md"}
    assert "- [Use tunewise from an agent](agents.md): let an agent use it" in real
    assert script.first_sentence("# T\n\n| a |\n") == ""
    (tmp_path / "llms.txt").write_text("no title\n- broken\n- [x](gone.md)\n", "utf-8")
    assert len(script.llms_problems(tmp_path)) == 4


def test_pictures_are_small_and_used(root: Path) -> None:
    """Every picture is on a page, is under 150 KB and fetches nothing; SVG from a terminal names no web font."""
    pictures = sorted((root / "docs" / "pictures").iterdir())
    text = "".join(page.read_text("utf-8") for page in (root / "docs").glob("*.md"))
    assert len(pictures) >= 4
    for picture in pictures:
        assert f"(pictures/{picture.name})" in text, f"{picture.name} is on no page"
        assert 2_000 < picture.stat().st_size < 150_000, picture.name
        if picture.suffix == ".svg":
            svg = picture.read_text("utf-8")
            assert "@font-face" not in svg
            assert "url(http" not in svg
