"""The generated documentation is up to date."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

Pages = tuple[ModuleType, dict[str, str]]


@pytest.fixture(scope="module")
def pages(root: Path) -> Pages:
    """The script that writes the pages, and what it writes."""
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("docs_script", root / "scripts" / "docs.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    sys.path[:] = before
    return script, script.generated_files()


def test_generated_docs_are_up_to_date(pages: Pages, root: Path) -> None:
    """``python scripts/docs.py`` rewrites them; this test only compares."""
    script, files = pages
    assert len(files) >= 10
    assert script.stale_files(root / "docs", files) == []


def test_docs_check_names_edited_and_missing_pages(pages: Pages, tmp_path: Path) -> None:
    """A page that was edited by hand, or is missing, is named; the others are not."""
    script, files = pages
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    assert script.stale_files(tmp_path, files) == []
    page = tmp_path / "cli.md"
    page.write_text(page.read_text("utf-8") + "edited\n", "utf-8")
    (tmp_path / "plan.md").unlink()
    assert sorted(script.stale_files(tmp_path, files)) == ["cli.md", "plan.md"]
