"""Requests drawn from the OpenAPI document: whatever they hold, no answer is a server error or of another shape."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error

ROUTES = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/search"),
    ("GET", "/v1/passages"),
    ("GET", "/v1/models/{name}"),
]
EACH = 84
"""Cases of each route, 500 in all; ten times as many with --deep."""


@pytest.fixture(scope="module")
def schema(served: Any) -> Any:
    """The document that the server gives of itself."""
    return schemathesis.openapi.from_url(f"{served.url}/openapi.json")


def test_the_document_names_every_route(served: Any) -> None:
    with served.client() as http:
        paths = http.get("/openapi.json").json()["paths"]
    assert set(paths) == {path for _, path in ROUTES} | {"/v1/models", "/health", "/metrics"}


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_nothing_that_is_sent_breaks_it(
    schema: Any, request: pytest.FixtureRequest, method: str, path: str
) -> None:
    operation = schema[path][method]
    cases = st.one_of(
        *(operation.as_strategy(mode) for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE))
    )
    seen = Counter[int]()

    @settings(
        max_examples=EACH * (10 if request.config.getoption("--deep") else 1),
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def send(case: Any) -> None:
        try:
            answer = case.call(session=session)
        except (requests.exceptions.InvalidHeader, requests.exceptions.InvalidURL):
            return  # never sent
        case.validate_response(answer, checks=[not_a_server_error])
        seen[answer.status_code] += 1
        if answer.status_code >= 400:
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

    with requests.Session() as session:
        send()
    print(dict(seen))
    assert sum(seen.values()) >= EACH / 2
    assert not [status for status in seen if status >= 500]
