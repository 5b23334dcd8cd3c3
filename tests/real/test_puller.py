"""The model puller beside MLServer, which serves the models of the agent's folder: SPEC M2, M3."""

import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from agents import STOP_DEADLINE, exchange
from model_list import Place
from support import Process, accepts, reserve_port, wait_until

HERE = Path(__file__).parent
INPUT = json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [1]}]})


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


class Server(Process):
    """MLServer on this port."""

    def __init__(self, place, port):
        packages = [os.environ["MLSERVER_PACKAGES"], str(HERE)]
        super().__init__(
            [
                sys.executable, HERE / "mlserver_repository.py",
                port, reserve_port(), reserve_port(), place.models,
            ],
            {**os.environ, "PYTHONPATH": os.pathsep.join(packages)},
        )  # fmt: skip
        self.await_start(lambda: accepts(port), "listening port")


@pytest.fixture
def server(place):
    """`server()` starts MLServer, always on the same port, which is `server.port`."""
    servers = []

    def start():
        servers.append(Server(place, start.port))
        return servers[-1]

    start.port = reserve_port()
    yield start
    for one in servers:
        if one.running():
            one.signal(signal.SIGTERM)
            one.wait(STOP_DEADLINE)


def infer(port, name):
    """The status, and the number if there is one."""
    answer = exchange(port, "POST", f"/v2/models/{name}/infer", INPUT, {"Content-Type": "application/json"})
    return answer.status, json.loads(answer.body)["outputs"][0]["data"][0] if answer.status == 200 else None


def test_models_come_and_go_with_the_list(place, server, agent):
    server()
    place.list(one=1)
    port = agent(server.port, *place.flags()).port
    assert infer(port, "one") == (200, 1)
    assert infer(port, "two")[0] == 404
    place.list(one=1, two=2)
    wait_until(lambda: infer(port, "two") == (200, 2), "prediction of the model that was added")
    place.list(two=2)
    wait_until(lambda: infer(port, "one")[0] == 404, "404 for the model that was removed")
    wait_until(lambda: not (place.models / "one").exists(), "end of its folder")
    assert infer(port, "two") == (200, 2)


def test_a_changed_model_answers_with_the_new_version_and_never_with_an_error(place, server, agent):
    server()
    place.list(m=0)
    port = agent(server.port, *place.flags()).port
    answers, over = [], threading.Event()

    def ask():
        while not over.is_set():
            answers.append(infer(port, "m"))

    client = threading.Thread(target=ask)
    client.start()
    try:
        for number in range(1, 11):
            place.list(m=number)
            wait_until(lambda number=number: answers and answers[-1] == (200, number), f"version {number}")
    finally:
        over.set()
        client.join()
    assert {status for status, _ in answers} == {200}
    numbers = [number for _, number in answers]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(11))


def test_a_server_that_was_started_anew_gets_its_models_again(place, server, agent):
    first = server()
    place.list(m=7)
    port = agent(server.port, *place.flags()).port
    assert infer(port, "m") == (200, 7)
    first.signal(signal.SIGKILL)
    first.wait(STOP_DEADLINE)
    server()
    assert infer(port, "m")[0] == 404
    wait_until(lambda: infer(port, "m") == (200, 7), "models of the server that was started anew")
