"""The generated documentation is up to date, and the page of the Python calls names them all."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

import tunewise

Pages = tuple[ModuleType, dict[str, str]]
OF_OTHERS = ("docs/gguf.md", "docs/how-it-works.md")
"""Pages of ggml and of llmfit, named as sources."""


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
    assert script.stale_files(root, files) == []


def test_docs_check_names_edited_and_missing_pages(pages: Pages, tmp_path: Path) -> None:
    """A page that was edited by hand, or is missing, is named; the others are not."""
    script, files = pages
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    assert script.stale_files(tmp_path, files) == []
    page = tmp_path / "docs" / "cli.md"
    page.write_text(page.read_text("utf-8") + "edited\n", "utf-8")
    (tmp_path / "docs" / "rules.md").unlink()
    assert sorted(script.stale_files(tmp_path, files)) == ["docs/cli.md", "docs/rules.md"]


def test_part_of_a_page_is_written_again_between_its_comments(pages: Pages) -> None:
    """What people wrote stays; a part that is missing, named twice or not known is an error."""
    script, _ = pages
    page = "# Title\n\n<!-- generated: a -->\nold\n<!-- end of a -->\n\nby hand\n"
    expected = "# Title\n\n<!-- generated: a -->\n\nnew\n\n<!-- end of a -->\n\nby hand\n"
    assert script.with_parts(page, {"a": lambda: ["new"]}) == expected
    assert script.with_parts(expected, {"a": lambda: ["new"]}) == expected
    for parts, text in (({}, page), ({"a": list, "b": list}, page), ({"a": list}, page + page)):
        with pytest.raises(ValueError, match="generated parts"):
            script.with_parts(text, parts)


def test_page_of_the_python_calls_names_them_all(root: Path) -> None:
    """Every public name of ``import tunewise`` is on the page, whose example is the one of the module, which a test runs."""
    page = (root / "docs" / "python.md").read_text("utf-8")
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]+)`", page))))
    assert len(tunewise.__all__) > 25
    assert set(tunewise.__all__) - named == set()
    example = page.partition("```python\n")[2].partition("```")[0]
    assert example in (tunewise.__doc__ or "")


def test_pages_that_the_packages_name_exist(root: Path, tracked: Mapping[str, str]) -> None:
    """Messages, help texts, docstrings and the glossary lead to pages that are there."""
    from advisor.glossary import TERMS

    named = {
        f"{path}: {page}": page
        for path, text in tracked.items()
        if path.startswith(("advisor/", "runners/", "rag/"))
        for page in re.findall(r"docs/[a-z-]+\.md", text)
        if page not in OF_OTHERS
    }
    named |= {f"glossary: {term.name}": term.read_more for term in TERMS}
    assert len(named) > 50
    assert [where for where, page in named.items() if not (root / page).is_file()] == []


def test_log_has_an_index_of_all_its_sections(root: Path) -> None:
    """Each section of benchmarks/LOG.md has a date, and a link in the index at the top that leads to it."""
    page = (root / "benchmarks" / "LOG.md").read_text("utf-8")
    headings = [head for head in re.findall(r"^## (.+)$", page, re.MULTILINE) if head != "Index"]
    assert len(headings) > 60
    assert [head for head in headings if not re.match(r"\d{4}-\d\d-\d\d · ", head)] == []
    anchors = [re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in headings]
    index = page.partition("\n## Index\n")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"\]\(#([^)]+)\)", index)) == sorted(anchors)
