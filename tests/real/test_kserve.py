"""The KServe SDK's own model server behind the agent: a client can't tell that the agent is there.

Every request is made twice, to the server itself and through the agent, and the two answers are the
same in all that does not tell the time.
"""

import json

import pytest
from conftest import exchange

JSON = {"Content-Type": "application/json"}
FLOWERS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3], [5.9, 3.0, 4.2, 1.5]]
# Fields of the moment or of the one connection.
PER_HOP = {"date", "connection", "keep-alive", "transfer-encoding"}


def tensor(name, shape, data):
    return {"name": name, "shape": shape, "datatype": "FP64", "data": data}


@pytest.fixture
def ask(agent, kserve_server):
    """`ask(method, path, body)` gives the answer of both ways, after it has found them equal."""
    proxied = agent(kserve_server.http_port)

    def both(method, path, body=None, headers=None):
        body = json.dumps(body) if isinstance(body, dict) else body
        headers = headers or (JSON if body is not None else {})
        direct, through = (
            exchange(port, method, path, body, headers)
            for port in (kserve_server.http_port, proxied.port)
        )
        assert through.status == direct.status
        assert through.body == direct.body
        assert end_to_end(through) == end_to_end(direct)
        return through

    return both


def end_to_end(answer):
    return [(name, value) for name, value in answer.headers if name.lower() not in PER_HOP]


def test_a_v1_predict_request_gets_its_predictions(ask):
    answer = ask("POST", "/v1/models/iris:predict", {"instances": FLOWERS})
    assert (answer.status, json.loads(answer.body)) == (200, {"predictions": [0, 2, 1]})
    assert answer.header("Content-Type") == "application/json"


def test_a_v2_infer_request_gets_its_outputs_and_its_id(ask):
    body = {"id": "flower-7", "inputs": [tensor("measurements", [3, 4], FLOWERS)]}
    answer = ask("POST", "/v2/models/iris/infer", body)
    content = json.loads(answer.body)
    assert (answer.status, content["id"]) == (200, "flower-7")
    assert content["outputs"][0]["data"] == [0, 2, 1]


def test_a_large_predict_request_arrives_whole(ask):
    """Some 400 KB each way: more than any buffer between the two."""
    answer = ask("POST", "/v1/models/iris:predict", {"instances": FLOWERS * 6000})
    assert json.loads(answer.body)["predictions"] == [0, 2, 1] * 6000


def test_a_chunked_request_reaches_a_python_server(ask):
    """The body as a generator would make it once; a list can be sent twice."""
    text = json.dumps({"instances": FLOWERS}).encode()
    answer = ask("POST", "/v1/models/iris:predict", [text[:10], text[10:11], text[11:]])
    assert answer.status == 200


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2", {"name": "kserve"}),
        ("/v2/models/iris", {"name": "iris"}),
        ("/v1/models", {"models": ["iris"]}),
    ],
)
def test_metadata_are_the_servers_own(ask, path, expected):
    answer = ask("GET", path)
    assert answer.status == 200
    assert expected.items() <= json.loads(answer.body).items()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", {"status": "alive"}),
        ("/v1/models/iris", {"name": "iris", "ready": True}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/iris/ready", {"name": "iris", "ready": True}),
    ],
)
def test_health_and_readiness_are_the_servers_own(ask, path, expected):
    answer = ask("GET", path)
    assert (answer.status, json.loads(answer.body)) == (200, expected)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/models/tulip", None),
        ("GET", "/v2/models/tulip", None),
        ("POST", "/v1/models/tulip:predict", {"instances": FLOWERS}),
        ("POST", "/v2/models/tulip/infer", {"inputs": [tensor("m", [3, 4], FLOWERS)]}),
        ("GET", "/no/such/path", None),
    ],
)
def test_an_unknown_model_or_path_is_404(ask, method, path, body):
    assert ask(method, path, body).status == 404


@pytest.mark.parametrize(
    ("path", "status"), [("/v1/models/iris:predict", 400), ("/v2/models/iris/infer", 422)]
)
@pytest.mark.parametrize("body", ['{"instances": [', "", "nonsense"])
def test_malformed_json_is_refused_by_the_server_and_not_by_the_agent(ask, path, status, body):
    """The SDK has its own status for each protocol, which shows whose answer it is."""
    assert ask("POST", path, body).status == status


def test_a_wrong_method_is_405(ask):
    assert ask("DELETE", "/v2/models/iris").status == 405


def test_a_head_request_gets_the_same_head_and_no_body(ask):
    assert ask("HEAD", "/v2/health/live").body == b""
