"""Objects behind a URL: local files, memory and S3, through fsspec.

An object appears whole or not at all: S3 shows none before its upload is complete, and local files are renamed or
linked into place. :func:`put_new` is a conditional put, which of several writers exactly one wins: ``If-None-Match: *``
on S3 (RFC 9110, section 13.1.2; Amazon S3 and others enforce it for single and multipart uploads), a hard link for
local files. A folder of objects is complete when its manifest is there, which :func:`upload_folder` writes last and
:func:`download_folder` reads first.

Credentials and endpoint of S3 come from where every AWS tool has them: ``AWS_ACCESS_KEY_ID``,
``AWS_SECRET_ACCESS_KEY``, ``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, ``AWS_ENDPOINT_URL_S3`` and the files in ``~/.aws``;
a URL that holds credentials is refused, because URLs end up in plans, logs and shell histories.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from rag.errors import BadInput, CannotRun, Problem, install_hint, system_reason
from rag.files import MANIFEST, disk_full_as_problem, sha256_file, temporary_beside

SCHEMES = ("s3", "file", "memory")
_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_VERSION_KEYS = ("ETag", "LastModified", "mtime", "created", "size")
"""What file systems of fsspec say of an object: S3, local files, memory."""
_CONFLICT_TRIES = 5
"""How often a conditional put is tried that meets another one in progress (S3's 409 ConditionalRequestConflict)."""
_EXISTS_CODES = {"PreconditionFailed", "412"}
_CONFLICT_CODES = {"ConditionalRequestConflict", "OperationAborted", "409"}
_DENIED_CODES = {
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
}
_DENIED_CODES |= {"401", "403", "AuthFailure", "InvalidClientTokenId", "RequestTimeTooSkewed"}


def is_url(text: str | Path) -> bool:
    """Return whether a text is a URL rather than a path."""
    return "://" in str(text)


def join_url(url: str, *names: str) -> str:
    """Return the URL of an object below another; names are relative and use "/"."""
    return "/".join([url.rstrip("/"), *names])


def check_url(url: str) -> str:
    """Return the scheme of a URL that can be used; nothing is contacted.

    Raises:
        BadInput: another scheme, no bucket, credentials in the URL (which are not repeated), or a query.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise BadInput(f"URLs of {scheme[:20]}:// are not read or written here", f"there are: {known}")
    bucket = rest.split("/")[0]
    # A secret may hold a slash, so that what follows the first colon is no longer before the first slash.
    if scheme == "s3" and ("@" in rest or ":" in bucket):
        raise BadInput(
            "the s3:// URL contains credentials, which would end up in files",
            f"remove them, and {_CREDENTIALS}",
        )
    if scheme == "s3" and not bucket:
        raise BadInput(f"{url} names no bucket", "e.g. s3://bucket/folder")
    if scheme == "file" and bucket:
        raise BadInput(f"{url} names another machine", "e.g. file:///folder, with three slashes")
    if "?" in rest or "#" in rest:
        raise BadInput(
            f"{scheme}://{bucket}/... has a query or a fragment, which is not used", "remove ? and #"
        )
    if ".." in rest.split("/"):
        raise BadInput(f"{url} holds '..'", "write the whole path")
    return scheme


def filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL and the path in it; nothing is contacted.

    Raises:
        BadInput: the URL cannot be used.
        CannotRun: the packages of the extra `s3` are not installed.
    """
    scheme = check_url(url)
    try:
        import fsspec

        if scheme == "s3":
            fs = _s3(os.getpid(), tuple(sorted(kv for kv in os.environ.items() if kv[0].startswith("AWS_"))))
        else:
            fs = fsspec.filesystem(scheme)
    except ImportError as error:
        raise CannotRun(f"{url} needs the package {error.name}", install_hint("s3")) from None
    return fs, str(fs._strip_protocol(url))


@lru_cache(maxsize=4)
def _s3(process: int, environment: tuple[tuple[str, str], ...]) -> Any:
    """Make the file system of a process (its event loop survives no fork) and its AWS variables, which it reads."""
    import s3fs

    config = {"retries": {"max_attempts": 3, "mode": "standard"}, "connect_timeout": 5, "read_timeout": 60}
    return s3fs.S3FileSystem(config_kwargs=config, use_listings_cache=False, skip_instance_cache=True)


def storage_endpoint(url: str) -> str:
    """Return the address that a URL's objects are at, such as ``https://s3.amazonaws.com``; "" for this machine."""
    fs, _ = filesystem(url)
    if check_url(url) != "s3":
        return ""
    with _storage_errors(url):
        fs.connect()
        return str(fs.s3.meta.endpoint_url)


def put_new(url: str, source: bytes | Path) -> bool:
    """Write an object that is not there yet.

    Args:
        url: the object.
        source: its bytes, or the local file that holds them.

    Returns:
        Whether this call wrote it; False when there was one, which stays as it is. False also when the reply to this
        very put was lost on its way and the put was repeated: compare the object's bytes where that matters.

    Raises:
        BadInput: the URL cannot be used, or names no object.
        CannotRun: the network, the bucket, the credentials, or the disk.
    """
    fs, path = filesystem(url)
    scheme = _check_object(url, path)
    if scheme == "file":
        return _link_new(Path(path), url, source)
    with _storage_errors(url):
        for attempt in range(_CONFLICT_TRIES):
            try:
                if isinstance(source, bytes):
                    fs.pipe_file(path, source, mode="create")
                elif scheme == "memory":
                    fs.pipe_file(path, source.read_bytes(), mode="create")
                else:
                    fs.put_file(str(source), path, mode="create")
                return True
            except FileExistsError:
                return False
            except OSError as error:
                code = _error_code(error)[0]
                if code in _EXISTS_CODES:
                    return False
                if code not in _CONFLICT_CODES or attempt + 1 == _CONFLICT_TRIES:
                    raise
                time.sleep(0.2 * 2**attempt)
    raise AssertionError("unreachable")


def put_object(url: str, source: bytes | Path) -> None:
    """Write an object, in place of one that is there; errors as of :func:`put_new`."""
    fs, path = filesystem(url)
    scheme = _check_object(url, path)
    if scheme == "file":
        with _file_errors(url, path), temporary_beside(Path(path), _blocks(source)) as temporary:
            temporary.replace(path)
        return
    with _storage_errors(url):
        if isinstance(source, bytes):
            fs.pipe_file(path, source)
        elif scheme == "memory":
            fs.pipe_file(path, source.read_bytes())
        else:
            fs.put_file(str(source), path)


def read_bytes(url: str) -> bytes:
    """Return the bytes of an object; `BadInput` when it is not there, `CannotRun` when that cannot be known."""
    fs, path = filesystem(url)
    _check_object(url, path)
    with _storage_errors(url):
        return bytes(fs.cat_file(path))


def exists(url: str) -> bool:
    """Return whether an object is there; `CannotRun` when that cannot be known, or its bucket is missing."""
    fs, path = filesystem(url)
    _check_object(url, path)
    with _storage_errors(url):
        try:
            return fs.info(path)["type"] == "file"
        except FileNotFoundError as error:
            if _error_code(error)[0] == "NoSuchBucket":
                raise
            return False


def list_objects(url: str) -> dict[str, int]:
    """Return the bytes of every object below a URL by its name, relative to the URL and sorted; {} where none is."""
    return {name: size for name, (size, _) in list_versions(url).items() if name}


def list_versions(url: str) -> dict[str, tuple[int, str]]:
    """Return bytes and version of every object below a URL by its name, as :func:`list_objects`; of the URL itself by "".

    The version is text that is another one when the object was written anew: ETag (of S3) and times, as the storage
    gives them.
    """
    return {
        name: (
            int(row["size"]),
            "; ".join(f"{key} {row[key]}" for key in _VERSION_KEYS if row.get(key) is not None),
        )
        for name, row in _rows_below(url).items()
    }


def modification_times(url: str) -> dict[str, datetime]:
    """Return when every object below a URL of S3 was written last, by the storage's clock, by its relative name."""
    return {name: row["LastModified"] for name, row in _rows_below(url).items() if name}


def _rows_below(url: str) -> dict[str, dict[str, Any]]:
    """Return what the storage says of every object below a URL by its relative name, sorted; of the URL itself by ""."""
    fs, path = filesystem(url)
    prefix = path.rstrip("/") + "/"
    with _storage_errors(url):
        try:
            rows = fs.find(path, detail=True)
        except FileNotFoundError as error:
            if _error_code(error)[0] == "NoSuchBucket":
                raise
            rows = {}
    below = {
        name.removeprefix(prefix) if name != path else "": row
        for name, row in rows.items()
        if name.startswith(prefix) or name == path
    }
    return dict(sorted(below.items()))


def remove_objects(url: str, names: Iterable[str]) -> None:
    """Remove objects below a URL in the order of their names given; those that are not there are passed over."""
    for name in names:
        fs, path = filesystem(join_url(url, name))
        with _storage_errors(join_url(url, name)):
            try:
                fs.rm_file(path)
            except FileNotFoundError as error:
                if _error_code(error)[0] == "NoSuchBucket":
                    raise


def upload_folder(folder: Path, url: str, last: str = MANIFEST) -> bool:
    """Upload every file of a folder, the manifest last and by conditional put, so that no reader sees half of it.

    Objects of the same names that an interrupted upload left are written over. Two writers at once are safe only where
    both write equal files, as under a name made of what the files are made from: the manifest of one may otherwise
    stand beside files of the other, which a reader then refuses by their hashes.

    Args:
        folder: the local folder, with the file `last` in it.
        url: where its files go.
        last: the name of the file that makes the folder complete.

    Returns:
        Whether the folder at `url` is now this one; False when a manifest was there already: of another folder, or
        at the beginning, in which case nothing is written.

    Raises:
        BadInput: the folder has no file `last`.
        CannotRun: the network, the bucket, the credentials, or the disk.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    if last not in names:
        raise BadInput(f"{folder} has no {last}: it is incomplete")
    if exists(join_url(url, last)):
        return False
    for name in names:
        if name != last:
            put_object(join_url(url, name), folder / name)
    body = (folder / last).read_bytes()
    # A put whose reply was lost is repeated by the client and then finds its own object.
    return put_new(join_url(url, last), body) or read_bytes(join_url(url, last)) == body


def download_folder(url: str, folder: Path, last: str = MANIFEST) -> dict[str, int]:
    """Download a folder that :func:`upload_folder` wrote, each file checked, its manifest last.

    Args:
        url: where its files are.
        folder: the local folder, made when it is not there.
        last: the name of its manifest. The files in its mapping ``files`` (name: ``bytes``, ``sha256``) are
            downloaded and checked; without such a mapping every object below the URL is downloaded.

    Returns:
        The bytes of each file by name, without the manifest.

    Raises:
        BadInput: the manifest is missing or damaged, a file is missing, or size or hash of one differ.
        CannotRun: the network, the bucket, the credentials, or the disk.
    """
    if not exists(join_url(url, last)):
        raise BadInput(f"{url} has no {last}: it is incomplete, or its upload still runs", "upload it again")
    body = read_bytes(join_url(url, last))
    entries = listed_files(body, join_url(url, last))
    names = [*entries] if entries is not None else [name for name in list_objects(url) if name != last]
    for name in names:
        download_file(join_url(url, name), folder / _safe_name(name, url), (entries or {}).get(name))
    with disk_full_as_problem(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / last).write_bytes(body)
    return {name: (folder / name).stat().st_size for name in names}


def download_file(url: str, path: Path, entry: Mapping[str, Any] | None = None) -> None:
    """Download one object, and compare it with its entry in a manifest.

    Args:
        url: the object.
        path: the local file, whose folders are made.
        entry: its ``bytes`` and ``sha256``; None where nothing is known of it.

    Raises:
        BadInput: it is not there, or its size or hash differs; the local file is then removed.
        CannotRun: the network, the credentials, or the disk.
    """
    fs, source = filesystem(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _storage_errors(url), disk_full_as_problem(path):
        fs.get_file(source, str(path))
    if entry is None:
        return
    size = path.stat().st_size
    if size != entry["bytes"]:
        problem = f"{url} is damaged: it has {size:,} bytes, its manifest says {entry['bytes']:,}"
    elif sha256_file(path) != entry["sha256"]:
        problem = f"{url} is damaged: its SHA-256 differs from its manifest"
    else:
        return
    path.unlink()
    raise BadInput(problem, "upload it again")


def listed_files(body: bytes, url: str) -> dict[str, Any] | None:
    """Return the files that a manifest lists, with size and hash; None when it has no such list.

    Raises:
        BadInput: the list is malformed.
    """
    try:
        manifest = json.loads(body)
        if not isinstance(manifest, dict) or "files" not in manifest:
            return None
        entries = manifest["files"]
        complete = all(type(e["bytes"]) is int and isinstance(e["sha256"], str) for e in entries.values())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(f"{url} is damaged: {error!r}", "upload it again") from None
    if not complete:
        raise BadInput(f"{url} is damaged: its list of files is malformed", "upload it again")
    return {_safe_name(name, url): entry for name, entry in entries.items()}


def _safe_name(name: str, url: str) -> str:
    """Return a name that stays inside its folder; `BadInput` for any other."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or str(path) != name or set(name) & set("\\\0:"):
        raise BadInput(
            f"{url} is refused: the name {name[:80]!r} may lead out of its folder", "do not use it"
        )
    return name


def _check_object(url: str, path: str) -> str:
    """Return the scheme; raise `BadInput` when a URL of S3 names a bucket alone."""
    scheme = check_url(url)
    if scheme == "s3" and "/" not in path.strip("/"):
        raise BadInput(f"{url} names a bucket, no object in it", "e.g. s3://bucket/folder/object")
    return scheme


@contextmanager
def _file_errors(url: str, path: Path | str) -> Iterator[None]:
    """Turn errors of a local file into a problem of one line that names the URL."""
    try:
        with disk_full_as_problem(path):
            yield
    except OSError as error:
        raise CannotRun(f"cannot write {url}: {system_reason(error)}", "choose another place") from error


def _blocks(source: bytes | Path) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as stream:
        while block := stream.read(1 << 20):
            yield block


def _link_new(path: Path, url: str, source: bytes | Path) -> bool:
    """Publish a local file by a hard link, or where a rename never replaces (Windows) by a rename."""
    publish: Callable[[Path, Path], Any] = os.rename if os.name == "nt" else os.link
    with _file_errors(url, path), temporary_beside(path, _blocks(source)) as temporary:
        try:
            publish(temporary, path)
        except FileExistsError:
            return False
    return True


def _error_code(error: BaseException) -> tuple[str, str]:
    """Return the code and the message of S3's reply that an error was made from; "" where it has none."""
    cause: BaseException | None = error
    while cause is not None:
        reply = getattr(cause, "response", None)
        if isinstance(reply, dict) and isinstance(reply.get("Error"), dict):
            return str(reply["Error"].get("Code", "")), str(reply["Error"].get("Message", ""))
        cause = cause.__cause__
    return "", ""


@contextmanager
def _storage_errors(url: str) -> Iterator[None]:
    """Turn errors of storage and network into a problem of one line that names the URL."""
    try:
        yield
    except Problem:
        raise
    except Exception as error:
        problem = _explained(url, error)
        if problem is None:
            raise
        raise problem from error


def _explained(url: str, error: Exception) -> Problem | None:
    """Return what to raise for an error; None for one that is not of storage or network."""
    # By name: importing botocore to compare classes would cost half a second for a URL of a local file.
    names = {kind.__name__ for kind in type(error).__mro__}
    code, message = _error_code(error)
    bucket = url.partition("://")[2].split("/")[0]
    if code == "NoSuchBucket":
        return CannotRun(
            f"{url}: there is no bucket {bucket}", "make it first, or check the name and AWS_ENDPOINT_URL"
        )
    if isinstance(error, FileNotFoundError):
        return BadInput(f"there is no object {url}", "check the URL and AWS_ENDPOINT_URL")
    if names & {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError"}:
        return CannotRun(f"there are no credentials for {url}", f"{_CREDENTIALS}; a URL never contains them")
    if code in _DENIED_CODES or isinstance(error, PermissionError):
        return CannotRun(
            f"access to {url} is denied ({code or system_reason(error)})",
            f"check the credentials: {_CREDENTIALS}",
        )
    if "ParamValidationError" in names or code == "InvalidBucketName":
        return BadInput(
            f"{bucket!r} is no name of a bucket", "3 to 63 small letters, digits, dots and hyphens"
        )
    if code:
        text = "".join(sign for sign in " ".join(message.split())[:200] if sign.isprintable())
        return CannotRun(f"the storage refused {url}: {code}, {text}", "see its log")
    if names & {"BotoCoreError", "TimeoutError", "ClientError", "ConnectionError"}:
        endpoint = (
            os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "the AWS endpoint"
        )
        host = urlsplit(endpoint).netloc.rpartition("@")[2] or endpoint
        return CannotRun(
            f"{url} cannot be reached at {host} ({type(error).__name__})",
            "check AWS_ENDPOINT_URL and the network",
        )
    if isinstance(error, OSError):
        return CannotRun(
            f"{url} cannot be used: {system_reason(error)}", "check that it is there and may be used"
        )
    return None
