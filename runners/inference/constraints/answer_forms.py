"""Hold the rows of a local generator to the constraints of their answers.

:class:`AnswerForms` is what :class:`runners.inference.local.LocalGenerator` uses of
:mod:`runners.inference.constraints.sampler`, which is imported only where there is a constraint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rag.errors import BadInput
from runners.inference.constraints.constraint import OutputConstraint

if TYPE_CHECKING:
    from runners.inference.constraints.sampler import ConstraintCompiler
    from runners.inference.decoding import TokenSampler
    from runners.inference.local import LocalGenerator


class AnswerForms:
    """The constraints of one generator's answers, compiled for its tokenizer."""

    def __init__(self, generator: LocalGenerator) -> None:
        """Store the generator; nothing is read before the first constraint."""
        self._generator = generator
        self._compiler: ConstraintCompiler | None = None

    @property
    def compiler(self) -> ConstraintCompiler:
        """The compiler for the generator's tokenizer and the end tokens of its current weights."""
        from runners.inference.constraints.sampler import ConstraintCompiler

        generator = self._generator
        if self._compiler is None or self._compiler.ends != generator.ends:
            self._compiler = ConstraintCompiler(generator.tokenizer, generator.ends, generator.vocabulary)
        return self._compiler

    def problem(self, constraint: OutputConstraint) -> str:
        """Return why answers cannot be held to a constraint; "" when they can."""
        return self.compiler.problem(constraint)

    def answer_tokens(self, constraint: OutputConstraint | None, limit: int) -> int:
        """Return the most tokens of an answer: the limit, but never fewer than the longest of a list of labels has.

        Raises BadInput for a form whose shortest answer has more tokens than the limit.
        """
        if constraint is None:
            return limit
        needed = self.compiler.needed_tokens(constraint)
        if constraint.kind == "labels":
            return max(limit, needed)
        if needed > limit:
            raise BadInput(
                f"the shortest answer of the form that is asked for has {needed:,} tokens, and answers may have {limit:,}",
                "allow more: max_new_tokens in the plan, max_tokens of a request",
            )
        return limit

    def hold(
        self,
        sampler: TokenSampler,
        rows: Mapping[int, tuple[Sequence[int], OutputConstraint | None, int]],
        trim: bool = True,
    ) -> TokenSampler:
        """Return a sampler that holds rows to their constraints; the same sampler where none has one.

        Args:
            sampler: chooses among the tokens that are allowed.
            rows: prompt, constraint (None for any text) and most tokens of the answer, by the sampler's index of the row.
            trim: whether the rows are answers, which may have reasoning before them.
        """
        if all(constraint is None for _, constraint, _ in rows.values()):
            return sampler
        from runners.inference.constraints.sampler import AnswerState, ConstrainedSampler

        generator = self._generator
        reasons = trim and generator.room > 0
        states = {
            row: AnswerState(
                self.compiler,
                constraint,
                limit,
                generator.most_tokens(prompt, limit, trim),
                generator.pieces(prompt) if reasons else None,
            )
            for row, (prompt, constraint, limit) in rows.items()
            if constraint is not None
        }
        return ConstrainedSampler(sampler, states, generator.decode)
