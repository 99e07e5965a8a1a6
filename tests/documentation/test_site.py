"""The documentation is built strictly: what is broken, missing from the navigation or remote ends the build."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

INDEX = """# Pages

[another page](other.md#its-part) ![a dot](dot.svg)

```{toctree}
other
```
"""
OTHER = "# Other\n\n## Its part\n\nText.\n"
DOT = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle cx="4" cy="4" r="4"/></svg>\n'


def build(root: Path, folder: Path, **changed: str) -> subprocess.CompletedProcess[str]:
    """Build a site of two pages, some files changed or added, with the configuration of the real one."""
    docs = folder / "docs"
    docs.mkdir()
    shutil.copy(root / "docs" / "conf.py", docs)
    for name, text in {"index_md": INDEX, "other_md": OTHER, "dot_svg": DOT, **changed}.items():
        (docs / name.replace("_", ".")).write_text(text, "utf-8")
    command = [sys.executable, "scripts/site.py", folder / "site", "--docs", docs]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("changed", "said"),
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
    ids=["whole", "broken", "remote"],
)
def test_what_is_wrong_ends_the_build(root: Path, tmp_path: Path, changed: dict[str, str], said: str) -> None:
    done = build(root, tmp_path, **changed)
    text = done.stdout + done.stderr
    assert done.returncode == int(bool(said)), text
    for part in said.split("; ") if ";" in said else said.split():
        assert part in text


def test_pictures_are_small_and_used(root: Path) -> None:
    """Every picture stands on a page, is under 150 KB and fetches nothing; SVG from a terminal names no web font."""
    pictures = sorted((root / "docs" / "pictures").iterdir())
    text = "".join(page.read_text("utf-8") for page in (root / "docs").glob("*.md"))
    assert len(pictures) >= 4
    for picture in pictures:
        assert f"(pictures/{picture.name})" in text, f"{picture.name} is on no page"
        assert 2_000 < picture.stat().st_size < 150_000, picture.name
        if picture.suffix == ".svg":
            drawn = picture.read_text("utf-8")
            assert "@font-face" not in drawn
            assert "url(http" not in drawn
