"""What the real-parts tests share: the agent and the servers behind it, each on a port that the
system chose, waited for with a deadline, and stopped again.
"""

import signal
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from agents import STOP_DEADLINE, Agent, check_programs, exchange, model_server
from support import Process, accepts, reserve_port, serving

HERE = Path(__file__).parent


def pytest_configure():
    check_programs("test-real")


@pytest.fixture
def example_server(request):
    """The port of the Rust example server; a test may mark it with the milliseconds that a call takes."""
    with model_server(getattr(request, "param", 0)) as port:
        yield port


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


@pytest.fixture
def http_server():
    """`http_server(HandlerClass)` serves it, one thread per connection, and gives the port."""
    with ExitStack() as servers:
        yield lambda handler: servers.enter_context(serving(handler))
