"""The generated documentation is up to date."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_generated_docs_are_up_to_date(root: Path) -> None:
    """``python scripts/docs.py`` rewrites them; this test only compares."""
    result = subprocess.run(
        [sys.executable, "scripts/docs.py", "--check"], cwd=root, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_docs_check_names_edited_and_missing_pages(root: Path, tmp_path: Path) -> None:
    """A page that was edited by hand, or is missing, is named; the others are not."""
    generate = [sys.executable, "scripts/docs.py", "--out", str(tmp_path)]
    assert subprocess.run(generate, cwd=root, capture_output=True, check=False).returncode == 0
    page = tmp_path / "cli.md"
    page.write_text(page.read_text("utf-8") + "edited\n", "utf-8")
    (tmp_path / "plan.md").unlink()
    result = subprocess.run([*generate, "--check"], cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "cli.md" in result.stderr
    assert "plan.md" in result.stderr
    assert "rules.md" not in result.stderr
