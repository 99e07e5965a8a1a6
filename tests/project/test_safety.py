"""What no file may contain: ways to run foreign code, addresses of registries, paths of one machine."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "torch.load",
    "torch.save",
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.full_load",
    "yaml.unsafe_load",
    "yaml.load_all",
    "tempfile.mktemp",
    "subprocess.getoutput",
}
FORBIDDEN_METHODS = {"extractall"}
FORBIDDEN_KEYWORDS = {"shell": True, "trust_remote_code": True, "allow_pickle": True, "weights_only": False}

# Split strings, so that this file does not match itself.
FORBIDDEN_TEXT = {
    "a registry's address": re.compile(
        r"(?i)index[-_]url|find[-_]links|py"
        r"pi\.(?:org|python)|python"
        r"hosted\.org|/sim"
        r"ple/|registry\.npm"
    ),
    "a path of one machine": re.compile(
        r"(?<![\w.~])/(?:work|root|home|Users|farm|opt|tmp/w)/\w|\b[A-Z]:\\Users"
    ),
}

# These tests set pip's variable for the package folder, to show that a wrong wheel is refused.
TEXT_EXCEPTIONS: dict[str, str] = {
    "tests/runners/models/test_resolve.py": "points pip at a folder of its own",
    "tests/runners/models/test_licenses.py": "points pip at a folder of its own",
}


def forbidden_uses(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of everything forbidden that a syntax tree imports or calls."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (
                (node.lineno, alias.name)
                for alias in node.names
                if alias.name.split(".")[0] in FORBIDDEN_MODULES
            )
        elif isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in FORBIDDEN_MODULES:
            yield node.lineno, str(node.module)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in FORBIDDEN_CALLS or name.rsplit(".", 1)[-1] in FORBIDDEN_METHODS:
                yield node.lineno, name
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if keyword.arg in FORBIDDEN_KEYWORDS and value is FORBIDDEN_KEYWORDS[keyword.arg]:
                    yield node.lineno, f"{keyword.arg}={value}"


def test_every_kind_of_forbidden_call_is_detected() -> None:
    """Each kind of forbidden import and call is detected; similar allowed calls are not."""
    bad = (
        "import pickle\nfrom joblib import load\neval('1')\ntorch.load(p)\nz.extractall(d)\n"
        "run(c, shell=True)\nf(trust_remote_code=True)\nyaml.load(t)"
    )
    assert [line for line, _ in forbidden_uses(ast.parse(bad))] == [1, 2, 3, 4, 5, 6, 7, 8]
    good = "model.eval()\nre.compile('x')\nyaml.safe_load(t)\nf(trust_remote_code=False)\nz.extract(n)"
    assert not list(forbidden_uses(ast.parse(good)))


def test_packages_do_not_run_foreign_code(modules: Mapping[str, ast.Module]) -> None:
    """No pickle, no eval, no shell, no remote code, no extractall."""
    wrong = [f"{path}:{line} {name}" for path, tree in modules.items() for line, name in forbidden_uses(tree)]
    assert not wrong, "\n".join(wrong)


def test_no_registry_addresses_or_machine_paths_in_tracked_files(tracked: Mapping[str, str]) -> None:
    """Nothing that git tracks names a package registry or a folder of the machine it was written on."""
    wrong = []
    used = set()
    for name, text in tracked.items():
        for number, line in enumerate(text.splitlines(), 1):
            for kind, pattern in FORBIDDEN_TEXT.items():
                if match := pattern.search(line):
                    used.add(name)
                    if name not in TEXT_EXCEPTIONS:
                        wrong.append(f"{name}:{number} holds {kind}: {match[0]}")
    assert not wrong, "\n".join(wrong)
    assert set(TEXT_EXCEPTIONS) <= used | (set(TEXT_EXCEPTIONS) - set(tracked)), (
        "an exception is no longer needed"
    )


def test_only_listed_modules_import_network_libraries(modules: Mapping[str, ast.Module]) -> None:
    """Only the files listed here open connections or listen; all other modules use them."""
    allowed = {
        "rag/object_storage.py": "reads and writes the objects of the URL that the user named",
        "runners/inference/http_client.py": "asks the endpoint that the user named",
        "runners/inference/servers/openai_client.py": "connects to that endpoint",
        "runners/serving/client.py": "asks a server of this user on this machine",
        "runners/serving/http/server.py": "listens at the address that the user named",
    }
    clients = {
        "socket",
        "http",
        "urllib",
        "requests",
        "httpx",
        "httpx2",
        "openai",
        "aiohttp",
        "ftplib",
        "smtplib",
    }
    clients |= {"fsspec", "s3fs", "boto3", "botocore", "aiobotocore"}
    wrong = []
    for path, tree in modules.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            names = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
            )
            used = [name for name in names if name.split(".")[0] in clients and name != "urllib.parse"]
            wrong += [f"{path}:{node.lineno} {name}" for name in used if path not in allowed]
    assert not wrong, "\n".join(wrong)
