"""``rag`` by itself: its public names, and the example of its docstring, run as it stands."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

import rag


def test_every_public_name_is_there() -> None:
    assert len(rag.__all__) >= 10
    for name in rag.__all__:
        assert getattr(rag, name).__doc__


@pytest.mark.real
def test_the_example_of_the_docstring_runs(tmp_path: Path, minilm_folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("documents").mkdir()
    front = "---\ndate: 2026-05-01\ntags: [ferry]\n---\n"
    Path("documents/fares.md").write_text(f"{front}# Fares\n\n## Dogs\nDogs travel on deck for 3 euros.\n")
    Path("documents/vets.md").write_text("# Vets\n\nA dog costs 30 euros at the vet.\n")
    test = doctest.DocTestParser().get_doctest(
        rag.__doc__ or "", {"EMBEDDER_FOLDER": minilm_folder}, "rag", rag.__file__, 0
    )
    assert len(test.examples) == 7
    said: list[str] = []
    result = doctest.DocTestRunner().run(test, out=said.append)
    assert (result.failed, result.attempted) == (0, 7), "".join(said)
