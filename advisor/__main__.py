"""Run the command line as `python -P -m advisor`."""

from __future__ import annotations

from advisor.cli import main

try:
    main()
finally:
    # CPython 3.11 ends a `python -m` by SIGINT, whatever the exit code, once a KeyboardInterrupt has passed through exec()
    # of a string, as where a dataclass is made. Evaluating a string clears that mark (run_eval_code_obj in pythonrun.c).
    eval("0")  # noqa: S307
