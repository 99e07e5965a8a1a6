"""Where memory, time and money set in: the numbers at which BL002, BL003 and BL005 change their mind."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from advisor.capacity import capacity, sizes
from advisor.cost import training_hours
from advisor.facts import own
from advisor.floor import largest
from advisor.methods.blocks import MOST_CPU_HOURS
from advisor.profile import Profile
from advisor.questions import BY_ID
from advisor.rental import holds, least_usd
from advisor.row import ROW_KEYS, beside
from advisor.size import size_passes
from advisor.solver import least, passes
from advisor.tokens import MOST_TOKENS, training_setup
from runners.memory import Use
from runners.tuning import TUNING_METHODS

_TIME_KEYS = (
    "labelled_examples", "unlabelled_tokens", "prompt_tokens", "answer_tokens", "model_params_b", "cpu_cores",
)  # fmt: skip


def limits(p: Profile, key: str) -> Iterator[float]:
    """Yield the values of a numeric answer at which BL002, BL003 or BL005 may begin or cease to block."""
    yield from capacity(p, key)
    if key in _TIME_KEYS and p.has_gpu is False:
        yield from _limit(p, key, _hours, MOST_CPU_HOURS)
    if key in _TIME_KEYS and p.budget_usd is not None:
        yield from _limit(p, key, _usd, p.budget_usd)
    if key == "budget_usd":
        yield from _budget(p)


def _limit(p: Profile, key: str, figure: Callable[[Profile, str], float], limit: float) -> Iterator[float]:
    """Yield where a figure that grows steadily with one answer passes a limit, for each way of tuning."""
    whole = BY_ID[key].kind == "count"
    if key == "model_params_b" and not p.remote:
        p = p.change("model", None)  # a known model's shape is a span of its own: see _params
    for method in TUNING_METHODS:

        def at(value: float, method: str = method) -> float:
            return figure(_with(p, key, value), method)

        if key == "cpu_cores":  # the one answer with which it falls
            yield least(lambda n, at=at: at(n) <= limit, 1, 1e5, whole)  # type: ignore[misc]
        elif key == "model_params_b":
            yield size_passes(at, limit, _jumps(p, method) if figure is _usd else ())
        elif key in ROW_KEYS:
            # Prompt and answer count by their sum alone, so what was found for one is a hint for the other.
            rest, name = beside(p, key), ("longest row", figure.__name__, method)
            hint = p.found.get(name, math.inf) - rest
            p.found[name] = rest + passes(at, limit, 1, MOST_TOKENS, whole, (hint,))
            yield p.found[name] - rest
        else:
            yield passes(at, limit, 1, MOST_TOKENS, whole)


def _jumps(p: Profile, use: Use) -> tuple[float, float]:
    """Return the sizes from which hardware at hand, and any for rent, holds no training: there money may jump."""
    here = math.inf if p.device_gib is None else sizes(use, training_setup(p), p.device_gib)[0]
    return here, largest(use, training_setup(p).seq_len, own.file())


def _with(p: Profile, key: str, value: float) -> Profile:
    return p.change(key, int(value) if BY_ID[key].kind == "count" else value)


def _hours(p: Profile, method: str) -> float:
    """The hours that BL003 looks at; none where there is a GPU, or nothing is known."""
    hours = training_hours(p, method) if p.has_gpu is False else None
    return hours.likely if hours else 0.0


def _usd(p: Profile, method: str) -> float:
    """The money that BL005 looks at; without end where no card is known that holds the method."""
    if p.remote or p.model_shape is None:
        return 0.0
    usd = least_usd(p, method)
    if usd is None:
        return 0.0 if holds(p, method) is None else math.inf
    return usd


def _budget(p: Profile) -> Iterator[float]:
    """Yield what each way of tuning costs at least."""
    for method in TUNING_METHODS:
        usd = least_usd(p, method)
        if usd is not None:
            yield usd
