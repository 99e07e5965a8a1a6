"""Every random number generator a run may draw from: seeded, taken out and put back. Heavy: imports torch."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor


def seed(number: int) -> None:
    """Seed torch on every device, Python and numpy."""
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number % 2**32)


def snapshot() -> dict[str, Tensor]:
    """Return the states as tensors, so that they can be stored without pickle."""
    _, words, gauss = random.getstate()
    _, keys, place, has_gauss, cached = np.random.get_state(legacy=True)
    found = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(words),
        "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
        "numpy_place": torch.tensor([place, has_gauss]),
        "numpy_gauss": torch.tensor([cached], dtype=torch.float64),
    }
    for number in range(torch.cuda.device_count()):
        found[f"cuda{number}"] = torch.cuda.get_rng_state(number)
    return found


def restore(state: dict[str, Tensor]) -> None:
    """Put back what :func:`snapshot` returned, on the devices that are here."""
    torch.set_rng_state(state["torch"])
    gauss = state["python_gauss"].tolist()
    random.setstate((3, tuple(state["python"].tolist()), gauss[0] if gauss else None))
    place, has_gauss = state["numpy_place"].tolist()
    keys = state["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, place, has_gauss, state["numpy_gauss"].item()))
    for number in range(torch.cuda.device_count()):
        if (own := state.get(f"cuda{number}")) is not None:
            torch.cuda.set_rng_state(own, number)
