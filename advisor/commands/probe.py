"""`tunewise probe`: measure the base model on a few of your questions before advising."""

from __future__ import annotations

from advisor.flags.plan import ProbeRequest
from advisor.flags.records import takes_flags


@takes_flags
def command(flags: ProbeRequest) -> None:
    """Test the base model on some of your questions.

    It answers about 30 questions from memory, with the right passage, and with search, and ten of your examples with a
    prompt alone: is that good enough already? What is clear is written as answers for `tunewise plan --answers`; what
    stays open is only printed. About two minutes on two CPU cores.
    """
    from advisor.probe.probe_view import run_probe

    run_probe(flags)
