"""A server process that has imported the large libraries and forks a child for each `tunewise` of a page's commands.

It is started by the fixture `environment`. The `tunewise` on the commands' PATH (client.py) passes its three standard
files, arguments, folder and environment to this process, waits, and exits with the child's code. So each command of a
page is a process of its own with real pipes and files, without the seconds that importing torch takes.
"""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import sys
import traceback
from typing import Any


def main(path: str) -> None:
    """Listen at a path until this process is killed or its parent ends."""
    import peft  # noqa: F401
    import torch
    import transformers.models.bert.modeling_bert
    import transformers.models.llama.modeling_llama  # noqa: F401

    import advisor.cli
    import rag.index  # noqa: F401

    torch.set_num_threads(1)
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    server.settimeout(5)
    parent = os.getppid()
    while os.getppid() == parent:
        try:
            caller, _ = server.accept()
        except TimeoutError:
            continue
        if os.fork() == 0:
            server.close()
            run_child(caller, advisor.cli.main)
        caller.close()


def run_child(caller: socket.socket, command: Any) -> None:
    """Run as the child: take over the caller's files, folder and environment, run the command, send the exit code."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _, files, _, _ = socket.recv_fds(caller, 1, 3)
        for number, file in enumerate(files):
            os.dup2(file, number)
        # Python's own stream objects remember whether the server's files were seekable.
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(io.FileIO(number, "w", closefd=False), "utf-8", line_buffering=True)
            for number in (1, 2)
        )
        arguments, folder, environment = json.loads(b"".join(iter(lambda: caller.recv(65536), b"")))
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["tunewise", *arguments]
        command(arguments)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        caller.sendall(str(code).encode())
        os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
