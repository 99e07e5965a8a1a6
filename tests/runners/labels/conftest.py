"""Fixtures: a planted run to label, and its label page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.label_pages import LabelPageServer, label_page_of, run_to_label
from tests.support.labelled_run import PlantedRun


@pytest.fixture
def planted(tmp_path: Path, words: Any) -> PlantedRun:
    """A finished run of two arms."""
    return run_to_label(tmp_path, words)


@pytest.fixture
def label_page(planted: PlantedRun) -> Iterator[LabelPageServer]:
    """Its label page."""
    with label_page_of(planted) as page:
        yield page
