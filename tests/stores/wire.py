"""The wire between a client and a store: it counts, and is cut, slow or held where a test wants it."""

import random
import re
import socket
import threading
import time
from contextlib import suppress


class Wire:
    """Takes connections on `port` for the store on `upstream`. Attributes may be set at any time."""

    def __init__(self, upstream):
        self.upstream = upstream
        self.sent = 0  # Bytes to the client, heads and all.
        self.ranges = []  # Asked for, in bytes: (start, end).
        self.cuts = 0
        # Of each connection, from the first range that is asked for on it: bytes to the client, after which it is cut.
        self.cut_after = lambda: None
        self.pause = 0  # Seconds between two pieces of 64 KiB.
        self.change = None  # Bytes that arrive as others: (those, these).
        self.held_from = None  # Ranges that start at this byte or later are not passed on, until `release`.
        self._released = threading.Event()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.close()
        self._released.set()

    def release(self):
        self._released.set()

    def through(self, env):
        """An environment in which the store is at the other end of this wire."""
        return {name: text.replace(f"127.0.0.1:{self.upstream}", f"127.0.0.1:{self.port}") for name, text in env.items()}

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                store = socket.create_connection(("127.0.0.1", self.upstream))
                left = []
                for serve in [self._requests, self._answers]:
                    threading.Thread(target=serve, args=(client, store, left), daemon=True).start()

    def _requests(self, client, store, left):
        """None of them has a body."""
        with suppress(OSError):
            lines = client.makefile("rb")
            while head := head_of(lines):
                if asked := re.search(rb"(?i)^(?:x-ms-)?range: bytes=(\d+)-(\d+)", head, re.M):
                    self.ranges.append((int(asked[1]), int(asked[2]) + 1))
                    if not left:
                        left.append(self.cut_after())
                    if self.held_from is not None and int(asked[1]) >= self.held_from:
                        self._released.wait()
                store.sendall(head)
        with suppress(OSError):
            store.shutdown(socket.SHUT_RDWR)

    def _answers(self, client, store, left):
        with suppress(OSError), client, store:
            while piece := store.recv(64 * 1024):
                cut = any(most is not None and len(piece) >= most for most in left)
                piece = piece[: left[0]] if cut else piece
                client.sendall(piece.replace(*self.change) if self.change else piece)
                with self._lock:
                    self.sent += len(piece)
                    self.cuts += cut
                if left and left[0] is not None:
                    left[0] -= len(piece)
                if cut:
                    # What was sent arrives, as a reset would not let it.
                    client.shutdown(socket.SHUT_RDWR)
                    store.shutdown(socket.SHUT_RDWR)
                    return
                if self.pause:
                    time.sleep(self.pause)
            client.shutdown(socket.SHUT_RDWR)


def head_of(lines):
    """With its empty line; nothing when there is no further one."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        if not (line := lines.readline()):
            return b""
        head += line
    return head


def random_cuts(seed, least, most):
    numbers = random.Random(seed)
    return lambda: numbers.randrange(least, most)
