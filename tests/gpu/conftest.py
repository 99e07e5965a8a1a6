"""Tests that need a GPU use the models of the GPU benchmark, which is not installed with the packages."""

from __future__ import annotations

import sys
from pathlib import Path

# At the end, so that the installed packages are tested and not this folder's.
sys.path.append(str(Path(__file__).resolve().parents[2]))
