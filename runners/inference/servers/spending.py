"""What the paid requests of a run cost so far, and the limit that they keep: the plan's ``most_usd``.

A request is reserved at what it can cost at most before it is sent, and counted by the server's tokens when it was answered;
each is a line of :data:`LEDGER`, so that a run that goes on knows what was spent. Retries that a server answered with an
error are taken for free, as providers have it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rag.errors import BadInput, CannotRun
from rag.files import append_line
from runners.models import resolve
from runners.models.endpoint import endpoint_host, is_private
from runners.plan.schema import Plan
from runners.plan.steps import PlanModel
from runners.run_folder import TRIAL, read_journal

LEDGER = "spending.jsonl"
"""In the trial's folder: a line for each paid answer."""
MILLION = 1_000_000
PROMPT_MARGIN = 1.3
"""By how much the estimated tokens of a prompt are raised before it is sent: the server's tokenizer is not known."""


class SpendingLimit(CannotRun):
    """The next request could cost more than is left of the plan's ``most_usd``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPrice:
    """What a remote model takes, in USD of a million tokens."""

    read: float
    written: float

    def usd(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return the price of a request."""
        return (prompt_tokens * self.read + completion_tokens * self.written) / MILLION


class Spending:
    """Counts what requests cost against a limit; safe to share between threads."""

    def __init__(self, ledger: Path, most_usd: float | None) -> None:
        """Read what was spent before.

        Args:
            ledger: the file of paid answers.
            most_usd: the limit; None for none.
        """
        self._ledger = ledger
        self.most_usd = most_usd
        self.spent = sum(float(row.get("usd", 0.0)) for row in read_journal(ledger))
        self._reserved = 0.0
        self._settled = threading.Condition()

    def meter(self, model: str, price: TokenPrice) -> TokenMeter:
        """Return what counts the requests to one model."""
        return TokenMeter(spending=self, model=model, price=price)

    def reserve(self, usd: float) -> None:
        """Keep the price of a request, waiting for those under way where they may leave enough.

        Raises:
            SpendingLimit: it is more than is left.
        """
        if self.most_usd is None:
            return
        with self._settled:
            while self._reserved > 0 and self.spent + self._reserved + usd > self.most_usd:
                self._settled.wait()
            if self.spent + usd > self.most_usd:
                raise SpendingLimit(
                    f"the limit of {self.most_usd:g} USD is reached: {self.spent:.4g} USD are spent, and the next request "
                    f"can cost {usd:.2g}",
                    "raise it: tunewise run RUN --resume --usd X",
                )
            self._reserved += usd

    def settle(self, reserved: float, usd: float, row: Mapping[str, object]) -> None:
        """Count an answer, or nothing for a request without one (an empty row), in place of what was reserved."""
        with self._settled:
            if row:
                append_line(self._ledger, {**row, "usd": round(usd, 9)})
            self.spent += usd
            self._reserved = max(0.0, self._reserved - reserved) if self.most_usd is not None else 0.0
            self._settled.notify_all()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenMeter:
    """Counts the requests to one model by its price."""

    spending: Spending
    model: str
    price: TokenPrice

    def reserve(self, prompt_tokens: int, most_tokens: int) -> float:
        """Reserve a request by its estimated prompt and longest answer in tokens, and return the USD."""
        usd = self.price.usd(PROMPT_MARGIN * prompt_tokens, most_tokens)
        self.spending.reserve(usd)
        return usd

    def settle(self, reserved: float, prompt_tokens: int, completion_tokens: int) -> None:
        """Count an answer by its tokens."""
        row = {"model": self.model, "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        self.spending.settle(reserved, self.price.usd(prompt_tokens, completion_tokens), row)

    def release(self, reserved: float) -> None:
        """Free what was reserved for a request that was not answered."""
        self.spending.settle(reserved, 0.0, {})


def token_price(model: PlanModel) -> TokenPrice | None:
    """Return the price that the plan states for a remote model; None without one."""
    if model.usd_per_million_input is None or model.usd_per_million_output is None:
        return None
    return TokenPrice(read=model.usd_per_million_input, written=model.usd_per_million_output)


def check_prices(plan: Plan) -> None:
    """Raise BadInput where a limit of money cannot be kept, since the plan has no price of a hosted model."""
    if plan.most_usd is None:
        return
    asked = [*plan.base_models, *([plan.judge] if plan.judge else [])]
    for model in asked:
        remote = resolve.parse_remote(model.name)
        if remote and not is_private(remote.url) and token_price(model) is None:
            raise BadInput(
                f"most_usd is {plan.most_usd:g}, and the plan has no price of {remote.name} at "
                f"{endpoint_host(remote.url)}",
                "give the model usd_per_million_input and usd_per_million_output, or remove most_usd",
            )


def spending_note(plan: Plan, spending: Spending) -> str:
    """Return what the paid requests of a run may cost, to be said before the first; "" where none is paid."""
    priced = {resolve.parse_remote(model.name): token_price(model) for model in plan.base_models}
    parts = [
        f"{remote.name} at {endpoint_host(remote.url)} ({price.read:g} USD of a million tokens read, "
        f"{price.written:g} written)"
        for remote, price in priced.items()
        if remote and price
    ]
    if not parts:
        return ""
    limit = "there is no limit (most_usd)"
    if plan.most_usd is not None:
        limit = f"at most {plan.most_usd:g} USD in all"
    before = f", {spending.spent:.4g} USD spent so far" if spending.spent else ""
    return f"paid requests: {', '.join(parts)}; {limit}{before}"


def open_spending(plan: Plan, run: Path) -> Spending:
    """Return the count of a run's paid requests, with what it spent before."""
    return Spending(run / TRIAL / LEDGER, plan.most_usd)
