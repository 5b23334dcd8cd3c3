"""What the real-parts tests share: the agent and the servers behind it, each on a port that the
system chose, waited for with a deadline, and stopped again.

`KSERVE_AGENT` names the agent's binary, `MODEL_SERVER_EXAMPLE` the Rust example server. Without
them nothing is tested, so their absence is an error and not a skip.
"""

import http.client
import os
import re
import signal
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import Process, accepts, reserve_port, serving, wait_until

HERE = Path(__file__).parent
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


@pytest.fixture
def http_server():
    """`http_server(HandlerClass)` serves it, one thread per connection, and gives the port."""
    with ExitStack() as servers:
        yield lambda handler: servers.enter_context(serving(handler))
