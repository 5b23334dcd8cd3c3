"""The batcher in front of Triton's own server, of nvidia-pytriton's wheel, with and without its
dynamic batcher: every answer is, byte for byte, the one that the request gets alone (SPEC B0, B9).
"""

import json
import os
import re
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from agents import STOP_DEADLINE, crowd, exchange
from support import Process, accepts, reserve_port

JSON = {"Content-Type": "application/json"}
CAP = 30
# The longest wait of each policy, in ms: of `window` for what fills no batch, of the others one that
# never comes.
POLICIES = {"window": 200, "eager": 60_000, "adaptive": 60_000}

CONFIG = """
backend: "python"
max_batch_size: {most}
input [{{ name: "x" data_type: TYPE_FP32 dims: [{dims}] }}]
output [
  {{ name: "twice" data_type: TYPE_FP32 dims: [{dims}] }},
  {{ name: "sum" data_type: TYPE_STRING dims: [{of_sum}] }}{mean}
]
instance_group [{{ kind: KIND_CPU }}]
"""
DYNAMIC = "dynamic_batching { max_queue_delay_microseconds: 1000 }"
MEAN = ',\n  { name: "mean" data_type: TYPE_FP32 dims: [1] }'


@dataclass
class Triton:
    port: int
    metrics_port: int

    def calls(self, model):
        text = exchange(self.metrics_port, "GET", "/metrics").body.decode()
        found = re.search(
            rf'^nv_inference_request_success{{model="{model}"[^}}]*}} (\S+)$', text, re.MULTILINE
        )
        return float(found[1]) if found else 0


def write_models(folder):
    """Three models: `plain`, `dynamic`, which Triton batches itself, and `mean`, whose third output
    has no batch dimension."""
    batched = CONFIG.format(most=64, dims=-1, of_sum=1, mean="")
    whole = CONFIG.format(most=0, dims="-1, -1", of_sum="-1, 1", mean=MEAN)
    for name, config in [("plain", batched), ("dynamic", batched + DYNAMIC), ("mean", whole)]:
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(config)
        shutil.copy(Path(__file__).parent / "triton_model.py", folder / name / "1" / "model.py")


@pytest.fixture(scope="module")
def triton(tmp_path_factory):
    """Triton's server, of the packages that `make test-real` makes and names."""
    packages = os.environ.get("TRITON_PACKAGES")
    if not packages:
        pytest.fail("TRITON_PACKAGES is not set; `make test-real` sets it")
    server = Path(packages) / "pytriton" / "tritonserver"
    folder = tmp_path_factory.mktemp("triton")
    # There is one program for each version of Python, whose standard library must lie in /usr/lib.
    shutil.copytree(server / "backends", folder / "backends")
    version = os.environ["TRITON_PYTHON"]
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, folder / "backends" / "python")
    write_models(folder / "models")
    ports = Triton(reserve_port(), reserve_port())
    process = Process(
        [
            server / "bin" / "tritonserver",
            f"--model-repository={folder / 'models'}",
            f"--backend-directory={folder / 'backends'}",
            "--http-address=127.0.0.1",
            "--metrics-address=127.0.0.1",
            f"--http-port={ports.port}",
            f"--metrics-port={ports.metrics_port}",
            "--allow-grpc=0",
        ],
        {**os.environ, "LD_LIBRARY_PATH": f"{packages}/nvidia_pytriton.libs"},
    )

    def ready():
        return accepts(ports.port) and exchange(ports.port, "GET", "/v2/health/ready").status == 200

    process.await_start(ready, "readiness")
    yield ports
    process.signal(signal.SIGTERM)
    process.wait(STOP_DEADLINE)


def tensor(rows, form="nested", **members):
    data = sum(rows, []) if form == "flat" else rows
    return {
        "name": "x",
        "shape": [len(rows), len(rows[0])],
        "datatype": "FP32",
        "data": data,
        **members,
    }


def body(rows, form="nested", **members):
    return json.dumps({"inputs": [tensor(rows, form)], **members}).encode()


def rows_of(number):
    """One to three rows of three numbers, some of which no FP32 holds."""
    odd = {3: 1e39, 11: -1e39, 17: 1e-46, 23: 16777217}.get(number, number / 7)
    return [[float(number), odd, -float(row)] for row in range(number % 3 + 1)]


def compare(agent, triton, model, bodies, policy):
    """Both ways; the number of calls that the agent made of the requests."""
    path = f"/v2/models/{model}/infer"
    alone = [exchange(triton.port, "POST", path, each, JSON) for each in bodies]
    wait = f"--max-latency={POLICIES[policy]}"
    on = ("--enable-batcher", f"--max-batchsize={CAP}", wait, f"--batch-policy={policy}")
    proxied = agent(triton.port, *on)
    before = triton.calls(model)
    answers = crowd(proxied.port, path, bodies)
    calls = triton.calls(model) - before
    assert answers == [(answer.status, answer.body) for answer in alone]
    return calls


@pytest.mark.parametrize("model", ["plain", "dynamic"])
@pytest.mark.parametrize("policy", POLICIES)
def test_every_request_gets_the_very_bytes_it_gets_alone(agent, triton, model, policy):
    """Nested and flat data, infinities, text outputs, ids of all kinds and none."""
    bodies = [
        body(
            rows_of(number),
            "flat" if number % 2 else "nested",
            **({"id": str(number)} if number % 4 else {}),
        )
        for number in range(60)
    ]
    assert compare(agent, triton, model, bodies, policy) < len(bodies)


def test_requests_for_some_outputs_share_a_batch_with_their_like_alone(agent, triton):
    """As tritonclient's JSON mode asks for them."""
    wanted = [["twice"], ["sum"], ["sum", "twice"]]
    bodies = [
        body(
            rows_of(number),
            outputs=[
                {"name": name, "parameters": {"binary_data": False}} for name in wanted[number % 3]
            ],
        )
        for number in range(45)
    ]
    assert compare(agent, triton, "plain", bodies, "eager") < len(bodies)


def test_what_triton_refuses_is_refused_alone(agent, triton):
    """Ragged rows, a wrong datatype and a row too many, between good requests."""
    bodies = [body(rows_of(number)) for number in range(CAP)]
    ragged = tensor([[1.0, 2.0, 3.0], [4.0, 5.0]])
    bodies[5] = json.dumps({"inputs": [ragged]}).encode()
    bodies[9] = json.dumps(
        {"inputs": [{**tensor([[1.0, 2.0, 3.0]]), "datatype": "BYTES"}]}
    ).encode()
    bodies[14] = json.dumps({"inputs": [{**tensor([[1.0, 2.0, 3.0]]), "shape": [2, 3]}]}).encode()
    compare(agent, triton, "plain", bodies, "eager")


def test_an_output_without_a_batch_dimension_is_that_of_its_request(agent, triton):
    """No batch of them can be divided, so each is asked alone."""
    bodies = [body(rows_of(number)) for number in range(CAP)]
    compare(agent, triton, "mean", bodies, "eager")
