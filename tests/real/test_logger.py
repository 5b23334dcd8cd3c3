"""The payload log, read with CloudEvents' own SDK: it carries what clients sent and got (SPEC L1 to L3)."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from cloudevents.conversion import to_json
from cloudevents.http import from_json
from conftest import exchange
from log_sink import log_sink, payload
from test_model_server import FLOWERS

JSON = {"Content-Type": "application/json"}
NAMES = {"inference-service": "iris", "namespace": "prod", "component": "predictor", "endpoint": "default"}
NAME_FLAGS = [f"--{name}={value}" for name, value in NAMES.items()]
V1 = json.dumps({"instances": FLOWERS}).encode()
V2 = json.dumps({
    "id": "flower-7",
    "inputs": [{"name": "measurements", "shape": [3, 4], "datatype": "FP64", "data": sum(FLOWERS, [])}],
}).encode()  # fmt: skip
# Paths, bodies and the content types of the example server's answers.
CALLS = [
    ("POST", "/v1/models/iris:predict", V1, "application/json"),
    ("POST", "/v2/models/iris/infer", V2, "application/json"),
    ("POST", "/v1/models/iris:stream", V1, "text/event-stream"),
    ("GET", "/v2/models/iris", b"", "application/json"),
]


@pytest.fixture
def sink():
    with log_sink() as one:
        yield one


def assert_same(event, body, content_type):
    """The event's data is this message's, with the attributes that the SDK asks for and KServe's."""
    assert (payload(event), event.get("datacontenttype", event.get("content-type"))) == (body, content_type)
    assert event["specversion"] == "1.0"
    assert event["source"].startswith("http://localhost:")
    assert {name: event[name.replace("-", "")] for name in ("namespace", "component", "endpoint")} == {
        name: NAMES[name] for name in ("namespace", "component", "endpoint")
    }
    assert event["inferenceservicename"] == NAMES["inference-service"]
    times = [datetime.fromisoformat(event[name]) for name in ("time", "recordedtime")]
    now = datetime.now(UTC)
    assert now - timedelta(minutes=1) < times[0] <= times[1] <= now + timedelta(seconds=1)


@pytest.mark.parametrize(("method", "path", "body", "content_type"), CALLS)
def test_events_carry_what_the_client_sent_and_got(
    agent, example_server, sink, method, path, body, content_type
):
    one = agent(example_server, sink.flag, *NAME_FLAGS)
    answer = exchange(one.port, method, path, body or None, JSON if body else {})
    assert (answer.status, answer.header("Content-Type")) == (200, content_type)
    request, response = sink.await_pair()
    assert_same(request, body, "application/json" if body else None)
    assert_same(response, answer.body, content_type)


def test_the_sdk_can_pass_an_event_on(agent, example_server, sink):
    """As JSON and back: no attribute has a name or a value that CloudEvents does not allow."""
    flags = ["--metadata-headers=X-Tenant", "--metadata-annotations=team=a", "--log-all-responses"]
    one = agent(example_server, sink.flag, *NAME_FLAGS, *flags, "--log-sample=0.999999999")
    headers = {**JSON, "X-Tenant": 'blü "1"'.encode(), "Ce-Id": "a-1"}
    exchange(one.port, "POST", "/v1/models/iris:predict", V1, headers)
    request, response = sink.await_pair()
    for event in (request, response):
        assert from_json(to_json(event), data_unmarshaller=lambda data: data).get_attributes() == event.get_attributes()
        assert event["id"] == "a-1"
        assert json.loads(event["metadata"]) == {"X-Tenant": ['bl%C3%BC "1"']}
        assert json.loads(event["annotations"]) == {"team": "a"}
        assert event["sampledrate"] == "1"
    assert response["statuscode"] == "200"


def test_batched_clients_have_events_of_their_own(agent, example_server, sink):
    flags = ["--enable-batcher", "--max-batchsize=3", "--max-latency=60000"]
    one = agent(example_server, sink.flag, *NAME_FLAGS, *flags)
    answer = exchange(one.port, "POST", "/v1/models/iris:predict", V1, JSON)
    assert len(json.loads(answer.body)["batchId"]) == 36
    request, response = sink.await_pair()
    assert_same(request, V1, "application/json")
    assert_same(response, answer.body, "application/json")


@pytest.mark.parametrize(("path", "body"), [("/v1/models/iris:predict", V1), ("/v2/models/iris/infer", V2)])
def test_in_front_of_kserves_own_server(agent, kserve_server, sink, path, body):
    one = agent(kserve_server.http_port, sink.flag, *NAME_FLAGS)
    answer = exchange(one.port, "POST", path, body, JSON)
    assert answer.status == 200
    request, response = sink.await_pair()
    assert_same(request, body, "application/json")
    assert_same(response, answer.body, "application/json")


def test_a_server_of_another_language_takes_a_burst(agent, example_server, sink):
    """Python's server reads one request at a time from its buffer, also of those that came together."""
    one = agent(example_server, sink.flag, *NAME_FLAGS)
    for _ in range(300):
        assert exchange(one.port, "POST", "/v1/models/iris:predict", V1, JSON).status == 200
    events = sink.await_events(600)
    assert len({event["id"] for event in events}) == 300
    assert {payload(event) for event in events if event["type"].endswith("request")} == {V1}
