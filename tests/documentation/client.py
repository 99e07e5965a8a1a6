"""The `tunewise` on the PATH of a page's commands: passes its files, arguments, folder and environment to a server.

The server is tests/support/command_server.py, which describes the protocol. It exits with the code of the process that the
server starts. Its first argument is the server's socket. It imports little, because every command of a page starts it.
"""

import json
import os
import socket
import sys

server = socket.socket(socket.AF_UNIX)
server.connect(sys.argv[1])
socket.send_fds(server, [b"!"], [0, 1, 2])
server.sendall(json.dumps([sys.argv[2:], os.getcwd(), dict(os.environ)]).encode())  # noqa: PTH109
server.shutdown(socket.SHUT_WR)
lines = server.makefile("r")
lines.readline()
sys.exit(int(lines.readline() or "1"))
