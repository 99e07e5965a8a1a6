"""The server's token: in a file of its own that only its owner reads, compared in constant time, shown nowhere."""

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
"""Characters of a token: fewer can be guessed."""


class AccessToken:
    """A token that requests are held against."""

    def __init__(self, token: str) -> None:
        """Keep its digest; the token itself is not kept."""
        self._digest = hashlib.sha256(token.encode()).digest()

    def __repr__(self) -> str:
        """Say nothing of it."""
        return "Key(...)"

    def opens(self, authorization: str) -> bool:
        """Whether an Authorization header carries the token: as Bearer, or as the password of Basic."""
        scheme, _, given = authorization.partition(" ")
        given = given.strip()
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except ValueError:  # no base64, or no UTF-8 in it
                return False
        elif scheme.lower() != "bearer":
            return False
        # Digests have one length, so the comparison tells nothing of the token's.
        return hmac.compare_digest(hashlib.sha256(given.encode()).digest(), self._digest)


def read_token(path: Path) -> tuple[AccessToken, bool]:
    """Read the token's file, or make one with a fresh token; say whether it was made.

    Raises BadInput when others may read the file, or when what it holds is no token.
    """
    if not path.exists():
        return _make(path), True
    try:
        # One handle for looking and reading: nothing can be put in its place in between.
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(4097)
    except OSError as error:
        raise BadInput(f"the token's file {path} cannot be read: {error.strerror}") from None
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise BadInput(
            f"others can read the token's file {path} (mode {stat.S_IMODE(mode):04o})", f"chmod 600 {path}"
        )
    token = raw.decode("ascii", errors="replace").strip()
    if (
        len(raw) > 4096
        or len(token) < MIN_TOKEN_CHARS
        or not token.isascii()
        or not token.isprintable()
        or " " in token
    ):
        raise BadInput(
            f"{path} holds no token: one line of at least {MIN_TOKEN_CHARS} letters, digits and signs is wanted",
            "remove it, and a fresh one is made",
        )
    return AccessToken(token), False


def needs_token(host: str) -> bool:
    """Whether an address can be reached from other machines, so that a token is needed."""
    return not is_loopback(host)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own, to itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_token(host: str, token: Path | None) -> None:
    """Raise UsageProblem when others could reach the server without a token."""
    if needs_token(host) and token is None:
        raise UsageProblem(
            f"--host {host} can be reached from other machines, and there is no token",
            "add --token FILE (made with a fresh token where there is none), or leave --host away",
        )


def _make(path: Path) -> AccessToken:
    token = secrets.token_urlsafe(32)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise BadInput(f"the token's file {path} cannot be made: {error.strerror}") from None
    with os.fdopen(handle, "w") as file:
        file.write(token + "\n")
    return AccessToken(token)
