"""The example model server (examples/model_server) behind the agent: what `make demo` shows."""

import json
import re

import pytest
from conftest import exchange

FLOWERS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3], [5.9, 3.0, 4.2, 1.5]]


@pytest.fixture
def port(agent, example_server):
    """The agent's, with the example server behind it."""
    return agent(example_server).port


def test_the_example_server_predicts_in_v1(port):
    answer = exchange(port, "POST", "/v1/models/iris:predict", json.dumps({"instances": FLOWERS}))
    assert (answer.status, json.loads(answer.body)) == (200, {"predictions": [0, 2, 1]})


def test_the_example_server_infers_in_v2(port):
    tensor = {"name": "measurements", "shape": [3, 4], "datatype": "FP64", "data": sum(FLOWERS, [])}
    body = json.dumps({"id": "flower-7", "inputs": [tensor]})
    answer = exchange(port, "POST", "/v2/models/iris/infer", body)
    content = json.loads(answer.body)
    assert (answer.status, content["id"]) == (200, "flower-7")
    assert content["outputs"][0]["data"] == [0, 2, 1]


def test_the_example_server_streams_its_events(port):
    body = json.dumps({"instances": FLOWERS})
    answer = exchange(port, "POST", "/v1/models/iris:stream", body)
    events = re.findall(rb"data: (.*)\n\n", answer.body)
    assert answer.header("Content-Type") == "text/event-stream"
    assert [json.loads(event)["class"] for event in events] == ["setosa", "virginica", "versicolor"]


def test_the_example_server_refuses_what_is_not_a_flower(port):
    answer = exchange(port, "POST", "/v1/models/iris:predict", '{"instances":[[1,2]]}')
    assert answer.status == 400
    assert "length 2" in json.loads(answer.body)["error"]
