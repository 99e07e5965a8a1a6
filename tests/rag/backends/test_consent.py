"""Hosts that a folder or a plan names are reached only where the user allowed them, and never with less protection."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from rag.backends.base import BACKENDS, URL_PARAMETERS, check_backend_url, shown_url, write_backend_file
from rag.backends.consent import INDEX_HOSTS, allowed_url, parse_index_hosts, url_places
from rag.backends.lance.storage import LanceAddress
from rag.backends.postgresql.connection import PostgresAddress
from rag.errors import BadInput, Problem, UsageProblem
from rag.index import Index, newest_generation
from runners.plan.steps import IndexStep

FILE = "run/index/backend.json"


def allowed(url: str, hosts: str, **environ: str) -> str:
    return allowed_url(url, FILE, {INDEX_HOSTS: hosts, **environ})


@pytest.mark.parametrize(
    ("url", "places"),
    [
        ("postgresql://tune@db.Example.org:5433/d", ["db.example.org:5433"]),
        ("postgresql://a@h1:1,h2/d?hostaddr=10.0.0.1", ["h1:1", "h2", "10.0.0.1"]),
        ("postgresql:///d?host=db.example.org", ["db.example.org"]),
        ("postgresql:///d", ["localhost"]),
        ("postgresql://h,/d", ["h", "localhost"]),
        ("postgresql:///d?host=/run/postgresql", ["/run/postgresql"]),
        ("postgresql://%2Frun%2Fpostgresql/d", ["/run/postgresql"]),
        ("postgresql:///d?hostaddr=::1", ["[::1]"]),
        ("postgresql:///?service=desk", ["service-desk"]),
        ("lancedb+s3://bucket/prefix", ["s3://bucket"]),
        ("lancedb:///srv/index", []),
    ],
)
def test_every_place_that_a_url_reaches_must_be_allowed(url: str, places: list[str]) -> None:
    assert url_places(url, {}) == places
    for place in places:
        others = ",".join(other for other in places if other != place)
        with pytest.raises(BadInput, match="which you have not allowed") as refusal:
            allowed(url, others)
        assert refusal.value.message.startswith(FILE)
        assert INDEX_HOSTS in refusal.value.hint
    assert allowed(url, ",".join(places)).startswith(url)


def test_a_host_without_a_port_stands_for_all_its_ports() -> None:
    for hosts in ("127.0.0.1", "127.0.0.1:5433", " x , 127.0.0.1 "):
        assert allowed("postgresql://127.0.0.1:5433/d", hosts) == "postgresql://127.0.0.1:5433/d"
    for hosts in ("127.0.0.1:5432", "127.0.0.10", "0.0.1", ""):
        with pytest.raises(BadInput, match=r"127\.0\.0\.1:5433"):
            allowed("postgresql://127.0.0.1:5433/d", hosts)
    assert allowed("postgresql://[::1]:5433/d", "[::1]") == "postgresql://[::1]:5433/d"
    with pytest.raises(BadInput, match="no host"):
        parse_index_hosts(["https://db.example.org"])


def test_a_servers_own_names_are_the_users_where_a_url_has_none() -> None:
    assert url_places("postgresql:///d", {"PGHOST": "db.example.org"}) == ["db.example.org"]


def test_a_file_cannot_weaken_the_connection_to_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGSSLMODE", "PGREQUIREAUTH", "PGSSLROOTCERT"):
        monkeypatch.delenv(name, raising=False)
    url = "postgresql://tune@db.example.org/d?index=fares"
    parameters = PostgresAddress.parse(allowed(url, "db.example.org")).parameters
    wanted = {"sslmode": "verify-full", "require_auth": "scram-sha-256", "gssencmode": "disable"}
    assert {name: parameters[name] for name in wanted} == wanted
    for weaker in (
        "sslmode=require", "sslmode=verify-ca", "require_auth=password", "require_auth=scram-sha-256,md5",
        "require_auth=none", "gssencmode=prefer", "sslrootcert=/tmp/my-own-ca.pem", "ssl_min_protocol_version=TLSv1",
    ):  # fmt: skip
        with pytest.raises(BadInput, match="a file may not choose that"):
            allowed(f"{url}&{weaker}", "db.example.org")
        PostgresAddress.parse(f"{url}&{weaker}")  # typed by the user
    # what the user says by libpq's own variables holds
    own = {"PGSSLMODE": "require", "PGREQUIREAUTH": "md5", "PGSSLROOTCERT": "/ca.pem"}
    given = allowed(f"{url}&sslmode=require&sslrootcert=/ca.pem", "db.example.org", **own)
    parameters = PostgresAddress.parse(given).parameters
    assert (parameters["sslmode"], parameters["require_auth"]) == ("require", "md5")
    with pytest.raises(BadInput, match="sslmode=prefer"):
        allowed(f"{url}&sslmode=prefer", "db.example.org", **own)
    # of several hosts one elsewhere is enough; sockets and the loopback interface need no certificate
    assert "verify-full" in allowed("postgresql://localhost,h/d", "localhost,h")
    assert allowed("postgresql:///d?host=/run/postgresql", "/run/postgresql").endswith("/run/postgresql")


def test_a_folder_is_not_opened_at_a_host_that_is_not_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through every way of the library that opens an index folder."""
    monkeypatch.delenv(INDEX_HOSTS, raising=False)
    write_backend_file(tmp_path / "index", "postgresql://tune@127.0.0.1:9/d", 1)
    from rag.backends.copying import copy_index

    for act in (
        lambda: Index.open(tmp_path / "index"),
        lambda: Index.update(tmp_path / "index", tmp_path, None),  # type: ignore[arg-type]
        lambda: newest_generation(tmp_path / "index"),
        lambda: copy_index(tmp_path / "index", f"lancedb://{tmp_path}/copy"),
    ):
        with pytest.raises(BadInput, match="which you have not allowed"):
            act()


class PasswordServer:
    """A server that asks for the password in plain text, without TLS, and keeps what it is sent."""

    def __init__(self) -> None:
        self.received = b""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                startup = connection.recv(4096)
                if startup[4:8] == (80877103).to_bytes(4, "big"):  # SSLRequest, or its like for GSSAPI
                    connection.sendall(b"N")
                    startup = connection.recv(4096)
                if startup:
                    connection.sendall(b"R" + (8).to_bytes(4, "big") + (3).to_bytes(4, "big"))
                    self.received += connection.recv(4096)


def test_a_password_is_never_given_to_a_host_that_only_a_file_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even to an allowed one: it would have to prove its name first. What the user types is the control."""
    server = PasswordServer()
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    monkeypatch.setenv(INDEX_HOSTS, "db.example.org,127.0.0.1")
    for name in ("PGSSLMODE", "PGREQUIREAUTH"):
        monkeypatch.delenv(name, raising=False)
    url = f"postgresql://tune@db.example.org:{server.port}/d?hostaddr=127.0.0.1&connect_timeout=5"
    for more in ("", "&sslmode=disable", "&sslmode=prefer", "&require_auth=password"):
        write_backend_file(tmp_path, url + more, 1)
        with pytest.raises(Problem):
            Index.open(tmp_path)
    assert server.received == b""
    with pytest.raises(Problem):
        Index.open(f"{url}&sslmode=disable")
    assert b"hunter2" in server.received


SECRETS = (
    "postgresql://tune:hunter2@h/d", "postgresql://tune%3Ahunter2@h/d", "postgresql://h/d?password=hunter2",
    "postgresql://h/d?passwor%64=hunter2", "postgresql://h/d?PASSWORD=hunter2", "postgresql://h/d?sslpassword=hunter2",
    "postgresql://h/d?passfile=/tmp/hunter2", "postgresql://h/d?aws_secret_access_key=hunter2",
    "postgresql://h/d#password=hunter2", "postgresql://h/d%23password=hunter2", "postgresql://h/d;password=hunter2",
    "postgresql://h/d%3Bpassword=hunter2", "postgresql://h/d?index=a;password=hunter2",
    "postgresql://h/d?index=a%3Bpassword=hunter2", "postgresql://h/d?user=tune:hunter2",
    "postgresql://h/d?scram_client_key=hunter2", "postgresql://h/d?oauth_client_secret=hunter2",
    "postgresql://h/d?hunter2", "postgresql://h/dbname%3Dd%20password%3Dhunter2",
    "postgresql://h/d?dbname=password%3Dhunter2", "postgresql://h/d?host=h%20password%3Dhunter2",
    "postgresql://h/d?options=-c%20app.token%3Dhunter2", "postgresql://h/d password=hunter2",
    "postgresql://[h:hunter2/d", "lancedb:///srv/i?aws_secret_access_key=hunter2", "lancedb:///srv/i;token=hunter2",
    "lancedb:///srv/i#token=hunter2", "lancedb+s3://KEY:hunter2@bucket/i", "lancedb+s3://hunter2@bucket/i",
    "lancedb+s3://bucket/i?aws_session_token=hunter2", "lancedb+s3://bucket/i?search=exact&storage_options=hunter2",
    "host=h dbname=d password=hunter2", "hunter2://h/d?password=x",
)  # fmt: skip


@pytest.mark.parametrize("url", SECRETS)
def test_no_form_of_a_secret_passes_a_plan_or_is_repeated(url: str) -> None:
    with pytest.raises(UsageProblem) as refusal:
        check_backend_url(url)
    if not url.startswith("hunter2"):
        assert "hunter2" not in str(refusal.value)
    with pytest.raises(ValueError, match="backend"):
        IndexStep(backend=url)
    address = LanceAddress if url.startswith("lancedb") else PostgresAddress
    with pytest.raises(UsageProblem) as refusal:
        address.parse(url)
    if not url.startswith("hunter2"):
        assert "hunter2" not in str(refusal.value)


def test_shown_urls_leave_secrets_out() -> None:
    for url in SECRETS[:14]:
        assert "hunter2" not in shown_url(url), url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://tune@db.example.org:5433/desk?index=fares&vectors=halfvec&search=exact",
        "postgresql://h/d?sslmode=require&sslrootcert=/ca.pem&options=-c%20maintenance_work_mem%3D8GB",
        "postgresql://h/d?options=-c%20max_parallel_maintenance_workers%3D0",
        "postgresql:///d?host=/run/postgresql&connect_timeout=3",
        "lancedb:///srv/date=2026/index?search=exact",
        "lancedb+s3://bucket/prefix?search=ivf_pq",
    ],
)
def test_the_documented_parameters_are_accepted(url: str) -> None:
    check_backend_url(url)
    assert IndexStep(backend=url).backend == url


def test_every_backend_has_its_parameters() -> None:
    assert set(URL_PARAMETERS) == set(BACKENDS)
