"""Requests generated from the OpenAPI document: no response is a server error or of another shape."""

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
CASES_PER_ROUTE = 84
"""About 500 in all; ten times as many with --deep."""


@pytest.fixture(scope="module")
def schema(served: Any) -> Any:
    """The server's OpenAPI document."""
    return schemathesis.openapi.from_url(f"{served.url}/openapi.json")


def test_openapi_lists_every_route(served: Any) -> None:
    with served.client() as http:
        paths = http.get("/openapi.json").json()["paths"]
    assert set(paths) == {path for _, path in ROUTES} | {"/v1/models", "/health", "/metrics"}


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_generated_requests_cause_no_server_error(
    schema: Any, request: pytest.FixtureRequest, method: str, path: str
) -> None:
    operation = schema[path][method]
    cases = st.one_of(
        *(operation.as_strategy(mode) for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE))
    )
    statuses = Counter[int]()

    @settings(
        max_examples=CASES_PER_ROUTE * (10 if request.config.getoption("--deep") else 1),
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
        statuses[answer.status_code] += 1
        if answer.status_code >= 400:
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

    with requests.Session() as session:
        send()
    print(dict(statuses))
    assert sum(statuses.values()) >= CASES_PER_ROUTE / 2
    assert not [status for status in statuses if status >= 500]
