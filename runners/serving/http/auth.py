"""The server's access token: read from a file that only its owner may read, compared in constant time, never printed.

`read_token` reads or creates the file; `check_token` refuses to serve other machines without a token.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import os
import secrets
import stat
from pathlib import Path

from rag.errors import BadInput, UsageProblem

MIN_TOKEN_CHARS = 16
"""Fewest characters of a token: a shorter one can be guessed."""
MAX_TOKEN_FILE_BYTES = 4096


class AccessToken:
    """A token that requests must carry."""

    def __init__(self, token: str) -> None:
        """Store the token's digest; the token itself is not stored."""
        self._digest = hashlib.sha256(token.encode()).digest()

    def __repr__(self) -> str:
        """Return a text that reveals nothing of the token."""
        return "AccessToken(...)"

    def matches(self, authorization: str) -> bool:
        """Return whether an Authorization header carries the token: as Bearer, or as the password of Basic."""
        scheme, _, given = authorization.partition(" ")
        given = given.strip()
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except ValueError:  # no base64, or no UTF-8 in it
                return False
        elif scheme.lower() != "bearer":
            return False
        # Digests have one length, so the time of the comparison reveals nothing of the token's.
        return hmac.compare_digest(hashlib.sha256(given.encode()).digest(), self._digest)


def read_token(path: Path) -> tuple[AccessToken, bool]:
    """Read the token's file, or create it with a fresh token.

    Returns:
        The token, and whether the file was created.

    Raises:
        BadInput: other users may read the file, or it holds no token.
    """
    if not path.exists():
        return _create_token(path), True
    return AccessToken(token_text(path)), False


def token_text(path: Path) -> str:
    """Return the token that a file holds.

    Raises:
        BadInput: the file cannot be read, other users may read it, or it holds no token.
    """
    try:
        # One handle for the mode and the content: the file cannot be replaced in between.
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(MAX_TOKEN_FILE_BYTES + 1)
    except OSError as error:
        raise BadInput(f"the token's file {path} cannot be read: {error.strerror}") from None
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise BadInput(
            f"others can read the token's file {path} (mode {stat.S_IMODE(mode):04o})", f"chmod 600 {path}"
        )
    token = raw.decode("ascii", errors="replace").strip()
    if (
        len(raw) > MAX_TOKEN_FILE_BYTES
        or len(token) < MIN_TOKEN_CHARS
        or not token.isascii()
        or not token.isprintable()
        or " " in token
    ):
        raise BadInput(
            f"{path} has no token: one line of at least {MIN_TOKEN_CHARS} letters, digits and signs is expected",
            "remove it, and a fresh one is made",
        )
    return token


def needs_token(host: str) -> bool:
    """Return whether an address can be reached from other machines, so that a token is needed."""
    return not is_loopback(host)


def is_loopback(host: str) -> bool:
    """Return whether a host name or address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_token(host: str, token: Path | None) -> None:
    """Raise `UsageProblem` when other machines could reach the server without a token."""
    if needs_token(host) and token is None:
        raise UsageProblem(
            f"--host {host} can be reached from other machines, and there is no token",
            "add --token FILE (created with a new token if it does not exist), or remove --host",
        )


def _create_token(path: Path) -> AccessToken:
    token = secrets.token_urlsafe(32)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise BadInput(f"the token's file {path} cannot be made: {error.strerror}") from None
    with os.fdopen(handle, "w") as file:
        file.write(token + "\n")
    return AccessToken(token)
