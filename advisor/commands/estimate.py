"""`tunewise estimate`: memory, hours and money of one way of running a model, or the estimate's own score."""

from __future__ import annotations

from advisor.flags.estimate import EstimateRequest
from advisor.flags.records import takes_flags


@takes_flags
def command(flags: EstimateRequest) -> None:
    """Estimate memory, hours and money for training or answering."""
    if flags.rows is not None:
        from benchmarks.scorers.memory_peaks import show_estimate_score

        show_estimate_score(flags.rows, flags.as_json)
        return
    from advisor.workflows import estimate
    from runners.models.hub import allow_hub

    if flags.allow_hub:
        allow_hub()
    estimated = estimate.estimate_request(flags, estimate.setup_flags(flags))
    estimate.show_estimate(estimated, flags.as_json)
