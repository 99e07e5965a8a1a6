"""The errors that tunewise raises on purpose, in one tree.

::

    Problem            exit 1    base class; not raised itself
    ├── UsageProblem   exit 2    wrong flags, verbs, an existing run folder
    ├── BadInput       exit 3    answers, plan, data, index, adapter: broken, damaged, mismatched
    ├── CannotRun      exit 4    memory, disk, GPU, a missing extra, a model that cannot be obtained
    └── GateNotMet     exit 5    complete, but the result is below the gate, or surely worse than before (recheck)

Libraries raise these; only the command line prints them and turns them into an exit code.
"""

from __future__ import annotations


class Problem(Exception):
    """Something went wrong that the user can act on.

    ``message`` says what happened, with the offending value and where it is, and why; ``hint`` says what to
    do next.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        """Keep the message and the hint; both are plain text without a trailing newline."""
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Return the message, followed by the hint in parentheses when there is one."""
        return f"{self.message} ({self.hint})" if self.hint else self.message


def system_reason(error: Exception) -> str:
    """Return why an operation failed in words: of an OSError the system's text without its number and the path."""
    return error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)


class UsageProblem(Problem):
    """The command was used wrongly: flags, verbs, an existing folder, nothing given."""

    exit_code = 2


class BadInput(Problem):
    """A file or value given by the user is broken, damaged, mismatched or leaking."""

    exit_code = 3


class CannotRun(Problem):
    """The request is fine, but this machine cannot carry it out."""

    exit_code = 4


class GateNotMet(Problem):
    """It finished and its files stay, but no arm met the plan's gate, or a recheck found a sure regression."""

    exit_code = 5


def install_hint(*extras: str) -> str:
    """Return the command that installs tunewise, or what is missing of it, with the named extras.

    pip takes an installed tunewise as it is, whether or not a package index has one, and adds what an extra lacks. An
    environment that another tool made (pipx, uv) is made anew from the checkout. Double quotes work in every shell.
    """
    if not extras:
        return "pip install tunewise (from a checkout: pip install .)"
    names = ",".join(extras)
    return f'pip install "tunewise[{names}]" (from a checkout: pip install ".[{names}]")'
