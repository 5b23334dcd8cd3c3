"""The batcher in front of real model servers: the predictions are those that the server gives without
it, and the server's own count of calls shows that requests were merged (SPEC B).

All requests of a test are under way before the first answer is read, so the number of calls does
not depend on how fast the machine is: a window that nothing but a full batch can close makes
exactly as many calls as there are full batches.
"""

import json
import math
import os
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from agents import crowd
from conftest import STOP_DEADLINE, exchange
from sklearn.datasets import load_iris
from support import Process, accepts, reserve_port

JSON = {"Content-Type": "application/json"}
FLOWERS = load_iris().data.tolist()
V1, V2 = "/v1/models/iris:predict", "/v2/models/iris/infer"
CAP = 30
ON = ("--enable-batcher", f"--max-batchsize={CAP}", "--max-latency=60000")
POLICIES = ("window", "eager", "adaptive")
# A policy that does not wait sends some small batches before the crowd is there; a call takes as
# long as dozens of requests take to arrive.
MOST_CALLS = {"window": len(FLOWERS) / CAP, "eager": 60, "adaptive": 60}


@dataclass
class ModelServer:
    """Where a model server answers, and where its count of predict calls is."""

    port: int
    metrics_port: int
    counter: str

    def calls(self):
        text = exchange(self.metrics_port, "GET", "/metrics").body.decode()
        found = re.search(rf'^{self.counter}{{[^}}]*"iris"[^}}]*}} (\S+)$', text, re.MULTILINE)
        return float(found[1]) if found else 0

    def answers(self, path, bodies):
        """What the server says by itself, one request after the other."""
        return [exchange(self.port, "POST", path, body, JSON) for body in bodies]


@pytest.fixture
def kserve(kserve_server):
    return ModelServer(
        kserve_server.http_port, kserve_server.http_port, "request_predict_seconds_count"
    )


@pytest.fixture(scope="session")
def mlserver():
    """MLServer, from its own folder of packages (`make test-real` makes and names it)."""
    packages = os.environ.get("MLSERVER_PACKAGES")
    if not packages:
        pytest.fail("MLSERVER_PACKAGES is not set; `make test-real` sets it")
    ports = [reserve_port() for _ in range(3)]
    script = Path(__file__).parent / "mlserver_iris.py"
    process = Process([sys.executable, script, *ports], {**os.environ, "PYTHONPATH": packages})

    def ready():
        if not all(map(accepts, ports)):
            return False
        return exchange(ports[0], "GET", "/v2/models/iris/ready").status == 200

    process.await_start(ready, "readiness")
    yield ModelServer(ports[0], ports[2], "model_infer_request_success_total")
    process.signal(signal.SIGTERM)
    process.wait(STOP_DEADLINE)


def v1(flowers):
    return json.dumps({"instances": flowers}).encode()


def v2(name, flowers, form):
    data = sum(flowers, []) if form == "flat" else flowers
    shape = [len(flowers), len(flowers[0])]
    tensor = {"name": "measurements", "shape": shape, "datatype": "FP64", "data": data}
    return json.dumps({"id": name, "inputs": [tensor]}).encode()


def in_threes(flowers):
    """1, 2, 3, 1, 2, 3 … flowers."""
    groups, start = [], 0
    while start < len(flowers):
        size = len(groups) % 3 + 1
        groups.append(flowers[start : start + size])
        start += size
    return groups


def contents(answers):
    """The JSON of answers that all are 200; but for `batchId` and `message`, which the batcher
    adds to those of V1."""
    for status, body in answers:
        assert status == 200, body
    documents = [json.loads(body) for _, body in answers]
    added = ("batchId", "message")
    return [{k: v for k, v in document.items() if k not in added} for document in documents]


def compare(agent, server, path, bodies, policy):
    """Both ways, and the number of calls that the agent made of the requests."""
    expected = [(answer.status, answer.body) for answer in server.answers(path, bodies)]
    proxied = agent(server.port, *ON, f"--batch-policy={policy}")
    before = server.calls()
    answers = crowd(proxied.port, path, bodies)
    calls = server.calls() - before
    assert contents(answers) == contents(expected)
    return calls


@pytest.mark.parametrize("policy", POLICIES)
def test_every_flower_gets_the_species_it_gets_without_the_batcher(agent, kserve, policy):
    bodies = [v1([flower]) for flower in FLOWERS]
    calls = compare(agent, kserve, V1, bodies, policy)
    assert CAP * calls >= len(FLOWERS)
    assert calls <= MOST_CALLS[policy]


@pytest.mark.parametrize("form", ["flat", "nested"])
@pytest.mark.parametrize("policy", POLICIES)
def test_every_tensor_gets_its_own_outputs_and_its_own_id(agent, kserve, policy, form):
    bodies = [v2(f"flower-{n}", [flower], form) for n, flower in enumerate(FLOWERS)]
    calls = compare(agent, kserve, V2, bodies, policy)
    assert CAP * calls >= len(FLOWERS)
    assert calls <= MOST_CALLS[policy]


def test_requests_of_several_instances_get_as_many_predictions(agent, kserve):
    bodies = [v1(flowers) for flowers in in_threes(FLOWERS)]
    assert compare(agent, kserve, V1, bodies, "eager") < len(bodies) / 2


def test_tensors_of_several_rows_in_both_forms_get_as_many_outputs(agent, kserve):
    groups = in_threes(FLOWERS)
    forms = ("flat", "nested")
    bodies = [v2(f"group-{n}", flowers, forms[n % 2]) for n, flowers in enumerate(groups)]
    assert compare(agent, kserve, V2, bodies, "eager") < len(bodies) / 2


def fails_alone(agent, server, path, bodies, bad, policy):
    """The request at `bad` gets the server's own answer, all others their predictions."""
    expected = [(answer.status, answer.body) for answer in server.answers(path, bodies)]
    assert [status == 200 for status, _ in expected] == [n != bad for n in range(len(bodies))]
    proxied = agent(server.port, *ON, f"--batch-policy={policy}")
    before = server.calls()
    answers = crowd(proxied.port, path, bodies)
    calls = server.calls() - before
    assert answers.pop(bad) == expected.pop(bad)
    assert contents(answers) == contents(expected)
    return calls


def test_a_flower_with_a_measurement_missing_fails_alone(agent, kserve):
    """One batch, which the server refuses as a whole, and then halves of what has it, down to the one."""
    bodies = [v1([flower]) for flower in FLOWERS[:CAP]]
    bodies[7] = v1([FLOWERS[7][:3]])
    assert fails_alone(agent, kserve, V1, bodies, 7, "window") <= 1 + 2 * math.ceil(math.log2(CAP))


def test_a_tensor_of_another_width_fails_alone(agent, kserve):
    """It is not alike the others, so it never shares a batch with them."""
    bodies = [v2(f"flower-{n}", [flower], "flat") for n, flower in enumerate(FLOWERS[:CAP])]
    bodies[7] = v2("flower-7", [FLOWERS[7][:3]], "flat")
    assert fails_alone(agent, kserve, V2, bodies, 7, "eager") < CAP


@pytest.mark.parametrize("form", ["flat", "nested"])
@pytest.mark.parametrize("policy", POLICIES)
def test_mlserver_gives_every_tensor_the_outputs_it_gives_without_the_batcher(
    agent, mlserver, policy, form
):
    bodies = [v2(f"flower-{n}", [flower], form) for n, flower in enumerate(FLOWERS)]
    calls = compare(agent, mlserver, V2, bodies, policy)
    assert CAP * calls >= len(FLOWERS)
    assert calls <= MOST_CALLS[policy]
