"""A key is sent to the host that it belongs to, encrypted or on this machine, and to no other."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from advisor.settings import read_settings
from rag.errors import BadInput, UsageProblem
from runners.inference.remote import RemoteGenerator
from runners.models import endpoint
from runners.plan.schema import parse_plan
from runners.run_folder import UNCONFIRMED_ENDPOINTS
from runners.runs import endpoint_consent

KEYS = {"OPENAI_API_KEY": "sk-openai", "TUNEWISE_API_KEY": "sk-own", "EXAMPLE_KEY": "sk-example"}


@pytest.mark.parametrize(
    ("url", "more", "variable"),
    [
        ("https://api.openai.com/v1", {}, "OPENAI_API_KEY"),
        ("https://API.OpenAI.com./v1", {}, "OPENAI_API_KEY"),
        ("https://api.openai.com.evil.example/v1", {}, ""),
        ("https://evil.example/api.openai.com/v1", {}, ""),
        ("https://api-openai.com/v1", {}, ""),
        ("https://api.example.com/v1", {}, ""),
        ("https://api.example.com/v1", {"TUNEWISE_API_HOST": "api.example.com"}, "TUNEWISE_API_KEY"),
        ("https://api.example.com:8443/v1", {"TUNEWISE_API_HOST": "api.example.com"}, "TUNEWISE_API_KEY"),
        ("https://api.example.com/v1", {"TUNEWISE_API_HOST": "api.example.com:443"}, "TUNEWISE_API_KEY"),
        ("https://api.example.com/v1", {"TUNEWISE_API_HOST": "api.example.com:8443"}, ""),
        ("https://api.example.com/v1", {"TUNEWISE_API_HOST": "example.com"}, ""),
        ("https://api.example.com/v1", {"TUNEWISE_API_KEYS": "api.example.com=EXAMPLE_KEY"}, "EXAMPLE_KEY"),
        ("https://api.openai.com/v1", {"TUNEWISE_API_KEYS": "api.openai.com=EXAMPLE_KEY"}, "EXAMPLE_KEY"),
        ("http://localhost:8000/v1", {"TUNEWISE_API_HOST": "localhost"}, "TUNEWISE_API_KEY"),
        ("http://[::1]:8000/v1", {"TUNEWISE_API_HOST": "[::1]"}, "TUNEWISE_API_KEY"),
    ],
)
def test_key_belongs_to_one_host(url: str, more: dict[str, str], variable: str) -> None:
    key = endpoint.api_key(url, {**KEYS, **more})
    assert (key.variable, key.value) == (variable, KEYS.get(variable, ""))
    assert not key.value or key.value not in repr(key)


@pytest.mark.parametrize(
    "url", ["http://api.openai.com/v1", "http://10.0.0.7:8000/v1", "http://desk.internal/v1"]
)
def test_key_is_never_sent_unencrypted_over_a_network(url: str) -> None:
    environ = {**KEYS, "TUNEWISE_API_HOST": endpoint.endpoint_host(url)}
    with pytest.raises(BadInput, match="unencrypted"):
        endpoint.api_key(url, environ)
    assert endpoint.api_key(url, {}).value == ""


def test_hints_name_the_variable_or_how_to_set_one() -> None:
    assert "read from OPENAI_API_KEY" in endpoint.key_hint("https://api.openai.com/v1", KEYS)
    assert "set OPENAI_API_KEY" in endpoint.key_hint("https://api.openai.com/v1", {})
    assert "TUNEWISE_API_HOST=api.example.com" in endpoint.key_hint("https://api.example.com/v1", KEYS)
    only_openai = {"OPENAI_API_KEY": "sk-openai"}
    assert "api.openai.com alone" in endpoint.unused_key_note("https://api.example.com/v1", only_openai)
    assert endpoint.unused_key_note("http://127.0.0.1:8000/v1", only_openai) == ""


@pytest.mark.parametrize(
    ("url", "is_openai"),
    [
        ("https://api.openai.com\\@evil.example/v1", False),
        ("https://evil.example\\@api.openai.com/v1", True),
        ("https://evil.example\\.api.openai.com/v1", False),
        ("https://api.openai.com%2eevil.example/v1", False),
        ("https://api.openai.com#@evil.example/v1", True),
        ("https://api.openai.com?@evil.example/v1", True),
    ],
)
def test_key_is_chosen_for_the_host_that_is_connected_to(url: str, is_openai: bool) -> None:
    assert (httpx.URL(url).host == "api.openai.com") is is_openai
    assert endpoint.api_key(url, KEYS).variable == ("OPENAI_API_KEY" if is_openai else "")
    RemoteGenerator(
        url, "tern-2", key="sk-openai"
    ).close()  # raises where the two readings of the host differ


@pytest.mark.parametrize(
    "url", ["https://api.openai.com\t.evil.example/v1", "https://\uff21PI.openai.com/v1"]
)
def test_address_that_cannot_be_connected_to_is_refused(url: str) -> None:
    with pytest.raises(BadInput, match="cannot be used"):
        RemoteGenerator(url, "tern-2", key="sk-openai")


def test_setting_binds_hosts_to_variables_and_never_holds_or_prints_a_key(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        '[api_keys]\n"api.example.com" = "EXAMPLE_KEY"\n"127.0.0.1:8000" = "LOCAL_KEY"\n', "utf-8"
    )
    pairs = read_settings(file).values["api_keys"]
    assert endpoint.parse_key_hosts(pairs) == {
        "api.example.com": "EXAMPLE_KEY",
        "127.0.0.1:8000": "LOCAL_KEY",
    }
    secret = "sk-proj-1234-abcd"
    for text in (
        f'[api_keys]\n"api.example.com" = "{secret}"\n',
        f'api_keys = "{secret}"\n',
        f'[api_keys]\n"https://api.example.com" = "EXAMPLE_KEY{secret}"\n',
        f'[api_keys]\n"api.example.com" = "{secret},x=y"\n',
    ):
        file.write_text(text, "utf-8")
        with pytest.raises(BadInput) as caught:
            read_settings(file)
        assert secret not in str(caught.value) + str(caught.value.hint)
        assert "api_keys" in str(caught.value)


def test_hosts_of_a_bundle_wait_until_they_are_allowed(tmp_path: Path) -> None:
    endpoint_consent.check_endpoint_allowed(tmp_path, "api.example.com")
    endpoint_consent.set_unconfirmed(tmp_path, ["b.example", "a.example", "b.example"])
    with pytest.raises(BadInput, match="came from a bundle") as caught:
        endpoint_consent.check_endpoint_allowed(tmp_path, "a.example")
    assert "tunewise runs allow" in (caught.value.hint or "")
    steps = [{"kind": "evaluate", "arm": "agentic-search", "retrieval": True, "passages": "looked_up"}]
    body = {
        "name": "p",
        "choice": "agentic-search",
        "model": {"name": "openai:m@https://a.example/v1"},
        "weights": {"token_f1": 1},
    }
    plan = parse_plan({**body, "data": {"questions": "q", "documents": "their/files"}, "steps": steps})
    sent = endpoint_consent.sent_by_plan(plan)
    assert sent == "questions and passages, and what its model reads of the files in their/files,"
    with pytest.raises(BadInput, match=r"its plan sends questions and passages, and what .*their/files"):
        endpoint_consent.check_endpoint_allowed(tmp_path, "a.example", sent)
    with pytest.raises(UsageProblem, match=r"c\.example"):
        endpoint_consent.allow_endpoints(tmp_path, ["c.example"])
    assert endpoint_consent.allow_endpoints(tmp_path, ["a.example"]) == ("a.example",)
    endpoint_consent.check_endpoint_allowed(tmp_path, "a.example")
    assert endpoint_consent.unconfirmed_endpoints(tmp_path) == ("b.example",)
    assert endpoint_consent.allow_endpoints(tmp_path, []) == ("b.example",)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / UNCONFIRMED_ENDPOINTS).write_text("{", "utf-8")
    with pytest.raises(BadInput, match="damaged"):
        endpoint_consent.check_endpoint_allowed(tmp_path, "a.example")
