"""The agent as a program of its own, the example server behind it, and requests to both.

`KSERVE_AGENT` names the agent's binary, `MODEL_SERVER_EXAMPLE` the Rust example server. Without
them nothing is tested, so their absence is an error and not a skip.
"""

import http.client
import os
import re
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import Process, accepts, reserve_port, wait_until

# SPEC D2: from the end of the quiet time at most 8 s are spent on finishing.
STOP_DEADLINE = 15.0


def check_programs(target):
    """Whether all that was set can be run; `target` of make sets it."""
    for name in ["KSERVE_AGENT", "MODEL_SERVER_EXAMPLE"]:
        path = os.environ.get(name)
        if not path:
            raise pytest.UsageError(f"{name} is not set; `make {target}` sets it")
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


@contextmanager
def model_server(cost_ms=0):
    """The port of the Rust example server; a call takes so many milliseconds."""
    server = Process([os.environ["MODEL_SERVER_EXAMPLE"], "--port", "0", "--cost-ms", str(cost_ms)])

    def listening():
        return re.search(r"^listening on 127\.0\.0\.1:(\d+)\n", server.output())

    try:
        yield int(server.await_start(listening, "listening line")[1])
    finally:
        server.kill()


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


def crowd(port, path, bodies):
    """The answers to requests that all arrive at once, each on a connection of its own: what is
    left of each to send, when the first is complete, is one byte."""
    connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for _ in bodies]
    try:
        for connection, body in zip(connections, bodies, strict=True):
            connection.putrequest("POST", path)
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body[:-1])
        for connection, body in zip(connections, bodies, strict=True):
            connection.sock.sendall(body[-1:])
        responses = [connection.getresponse() for connection in connections]
        return [(response.status, response.read()) for response in responses]
    finally:
        for connection in connections:
            connection.close()
