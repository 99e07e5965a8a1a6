"""Fixtures of the tests of the scorers, which the verbs `eval-advice`, `curve --cases` and `estimate --rows` call."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from advisor.cli import main


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `tunewise` with arguments in this process; return what it printed."""

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(list(map(str, arguments)))
        assert stopped.value.code in (0, None)
        return capsys.readouterr().out

    return run
