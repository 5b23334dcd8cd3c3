"""Servers of a test's own and programs that it starts, each on a port that the system chose, waited for with a deadline."""

import os
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

# Longest wait for one condition. Importing the KServe SDK on a cold disk is the slowest of them.
DEADLINE = 60.0


# Waiting


def wait_until(condition, what, seconds=DEADLINE):
    """The first true result of `condition`; fails with `what` when the time is over."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > end:
            pytest.fail(f"after {seconds:.0f} s still no {what}")
        time.sleep(0.01)
    return result


def reserve_port():
    """A port that the system chose and will not give to anybody else within the next minute.

    A connection to itself, closed on the server's side first, leaves the port in TIME_WAIT: the
    kernel then hands it out neither to `bind(0)` nor as a client's own port, but a server that asks
    for it by number (with SO_REUSEADDR, as all servers do) gets it.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            listener.accept()[0].close()
    return port


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


@contextmanager
def volume_of(size, folder):
    """A folder on a volume of its own, of so many bytes; only root may make one."""
    folder.mkdir(exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    mounted = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no volume can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


# Processes


class Process:
    """A program under test; what it prints is kept for the message of a failure."""

    def __init__(self, arguments, env=None):
        self.name = Path(arguments[0]).name
        self._output = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [str(argument) for argument in arguments],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        self.pid = self._process.pid

    def output(self):
        """All that was printed so far; the offset is the program's own as well, so no seeking."""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode(errors="replace")

    def await_start(self, condition, what):
        def started():
            if self._process.poll() is not None:
                pytest.fail(f"{self.name} ended with {self._process.returncode}: {self.output()}")
            return condition()

        try:
            return wait_until(started, f"{what} of {self.name}")
        except BaseException:
            self.kill()
            raise

    def running(self):
        return self._process.poll() is None

    def signal(self, number):
        self._process.send_signal(number)

    def wait(self, seconds):
        """The exit code; a process that does not end in time is killed and fails the test."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"{self.name} was still running after {seconds} s: {self.output()[-2000:]}")

    def kill(self):
        self._process.kill()
        self._process.wait()


# HTTP


class Handler(BaseHTTPRequestHandler):
    """Base of the tests' own servers: HTTP/1.1 with both kinds of request body."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    PIECE = 256 * 1024

    def body(self):
        """The request's body, piece by piece, whatever its framing."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield from self._read(size)
                assert self.rfile.readline() == b"\r\n"
            while self.rfile.readline() != b"\r\n":
                pass
        else:
            yield from self._read(int(self.headers.get("Content-Length", 0)))

    def _read(self, size):
        while size:
            piece = self.rfile.read(min(size, self.PIECE))
            if not piece:
                raise ConnectionError("the body ended early")
            size -= len(piece)
            yield piece

    def answer(self, status, body, content_type="text/plain"):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing: a failed test shows the agent's messages and its own."""


@contextmanager
def serving(handler):
    """The port of a server that answers with `handler`, one thread per connection."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
