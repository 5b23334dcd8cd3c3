"""Runs the page's tests on a running agent: `with_agent.py AGENT MODEL_SERVER`, besides pytest's own arguments.

The agent has a batcher, a payload log with a spool, the example server behind it, a sink that now and then answers 503,
and traffic while the tests run.
"""

import http.client
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "real"))

from support import Handler, Process, accepts, reserve_port, serving  # noqa: E402

BODY = json.dumps({"instances": [[5.1, 3.5, 1.4, 0.2]]})
TYPE = {"Content-Type": "application/json"}
CLIENTS = 4


class Sink(Handler):
    """Takes events, all but one in 50 at the first attempt."""

    numbers = itertools.count(1)

    def do_POST(self):
        for _ in self.body():
            pass
        self.answer(200 if next(self.numbers) % 50 else 503, b"")


def ask(port, stop):
    """Predictions, and now and then what goes wrong, until `stop` is set."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    number = 0
    while not stop.wait(0.002):
        number += 1
        body = BODY if number % 10 else "{}"
        client.request("POST", "/v1/models/iris:predict", body, TYPE)
        client.getresponse().read()


def main(agent, model_server, *pytest_arguments):
    with serving(Sink) as sink, tempfile.TemporaryDirectory() as spool:
        flags = [f"--log-url=http://127.0.0.1:{sink}/events", f"--log-spool-dir={spool}"]
        return run(agent, model_server, flags, pytest_arguments)


def run(agent, model_server, log_flags, pytest_arguments):
    port, admin = reserve_port(), reserve_port()
    server_port = reserve_port()
    server = Process([model_server, "--port", server_port, "--cost-ms", "5"])
    server.await_start(lambda: accepts(server_port), "listening port")
    flags = ["--metrics-port=0", "--enable-batcher", "--batch-policy=adaptive", *log_flags]
    ports = [f"--port={port}", f"--component-port={server_port}", f"--admin-port={admin}"]
    agent = Process([agent, *ports, *flags])
    stop = threading.Event()
    clients = [threading.Thread(target=ask, args=(port, stop)) for _ in range(CLIENTS)]
    try:
        agent.await_start(lambda: accepts(port) and accepts(admin), "listening ports")
        for client in clients:
            client.start()
        environment = {**os.environ, "STATUS_URL": f"http://127.0.0.1:{admin}", "STATUS_SINK": "1"}
        tests = [sys.executable, "-m", "pytest", "--quiet", Path(__file__).parent]
        return subprocess.run([*tests, *pytest_arguments], env=environment).returncode
    finally:
        stop.set()
        for client in clients:
            client.join()
        agent.kill()
        server.kill()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
