"""A server on the loopback interface that counts connections and says nothing."""

from __future__ import annotations

import socket
import threading
from types import TracebackType


class SilentServer:
    """Accepts connections, counts them, and closes them at once."""

    def __init__(self) -> None:
        """Listen on a free port."""
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._count, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The URL of an index in PostgreSQL at this server."""
        return f"postgresql://tune@127.0.0.1:{self.port}/desk?index=fares&connect_timeout=2"

    def _count(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()

    def __enter__(self) -> SilentServer:
        """Return the server, which listens."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop listening."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
