"""What the real-parts tests share: the agent and the servers behind it, each on a port that the
system chose, waited for with a deadline, and stopped again.

`KSERVE_AGENT` names the agent's binary, `MODEL_SERVER_EXAMPLE` the Rust example server. Without
them nothing is tested, so their absence is an error and not a skip.
"""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Longest wait for one condition. Importing the KServe SDK on a cold disk is the slowest of them.
DEADLINE = 60.0
# SPEC D2: from the end of the quiet time at most 8 s are spent on finishing.
STOP_DEADLINE = 15.0
BINARIES = ("KSERVE_AGENT", "MODEL_SERVER_EXAMPLE")


def pytest_configure():
    for name in BINARIES:
        path = os.environ.get(name)
        if not path:
            raise pytest.UsageError(f"{name} is not set; `make test-real` sets it")
        if not os.access(path, os.X_OK):
            raise pytest.UsageError(f"{name}={path} is not a program that can be run")


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


class Agent(Process):
    """The agent in front of the server at `component_port`."""

    def __init__(self, component_port, flags, env):
        self.port = reserve_port()
        arguments = [
            os.environ["KSERVE_AGENT"],
            f"--port={self.port}",
            f"--component-port={component_port}",
            "--metrics-port=0",
            "--admin-port=0",
            *flags,
        ]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("SERVING_")}
        super().__init__(arguments, {**inherited, **(env or {})})
        self.await_start(lambda: accepts(self.port), "listening port")

    def rss(self):
        """Resident memory now, in bytes."""
        return self._memory("VmRSS")

    def peak_rss(self):
        """The most resident memory there ever was, in bytes."""
        return self._memory("VmHWM")

    def _memory(self, field):
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        pytest.fail(f"no {field} for {self.name}")

    def stop(self):
        """Ends the agent as Kubernetes would, in a hurry: the second signal skips the quiet time.

        It is sent only when probes say that the first one has arrived, because two pending signals
        of a kind become one.
        """
        if not self.running():
            pytest.fail(f"{self.name} ended by itself: {self.output()[-2000:]}")
        self.signal(signal.SIGTERM)
        wait_until(self._drains, "drain after SIGTERM", STOP_DEADLINE)
        if self.running():
            self.signal(signal.SIGTERM)
        code = self.wait(STOP_DEADLINE)
        assert code == 0, f"exit code {code}: {self.output()[-2000:]}"

    def _drains(self):
        try:
            answer = exchange(self.port, "GET", "/", headers={"User-Agent": "kube-probe/1.31"})
        except OSError:
            return True  # It listens no longer.
        return answer.status == 503 and answer.body.startswith(b"shutting down")


@pytest.fixture
def example_server(request):
    """The port of the Rust example server; a test may mark it with the milliseconds that a call takes."""
    cost = getattr(request, "param", 0)
    server = Process([os.environ["MODEL_SERVER_EXAMPLE"], "--port", "0", "--cost-ms", str(cost)])

    def listening():
        return re.search(r"^listening on 127\.0\.0\.1:(\d+)\n", server.output())

    try:
        yield int(server.await_start(listening, "listening line")[1])
    finally:
        server.kill()


@pytest.fixture
def agent():
    """`agent(component_port, *flags, env=…)` starts one; it has to end well after the test."""
    agents = []

    def start(component_port, *flags, env=None):
        agents.append(Agent(component_port, flags, env))
        return agents[-1]

    yield start
    try:
        for one in agents:
            one.stop()
    finally:
        for one in agents:
            one.kill()
            print(one.output())  # Shown by pytest when the test has failed.


@dataclass
class KServeServer:
    http_port: int
    grpc_port: int


@pytest.fixture(scope="session")
def kserve_server():
    """The KServe SDK's model server with scikit-learn's iris, as the model `iris`."""
    ports = KServeServer(reserve_port(), reserve_port())
    process = Process([
        sys.executable, HERE / "iris_server.py",
        f"--http_port={ports.http_port}", f"--grpc_port={ports.grpc_port}",
    ])  # fmt: skip

    def ready():
        if not (accepts(ports.http_port) and accepts(ports.grpc_port)):
            return False
        return exchange(ports.http_port, "GET", "/v2/health/ready").status == 200

    process.await_start(ready, "readiness")
    yield ports
    process.signal(signal.SIGTERM)
    process.wait(STOP_DEADLINE)


# HTTP


@dataclass
class Answer:
    status: int
    headers: list
    body: bytes

    def header(self, name):
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


def exchange(port, method, path, body=None, headers=None, timeout=30):
    """One request on a connection of its own. An iterable as body is sent chunked, unless the
    headers give its length."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return Answer(response.status, response.getheaders(), response.read())
    finally:
        connection.close()


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


@pytest.fixture
def http_server():
    """`http_server(HandlerClass)` serves it, one thread per connection, and gives the port."""
    servers = []

    def start(handler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return server.server_address[1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
