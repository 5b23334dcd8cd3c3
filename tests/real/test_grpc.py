"""gRPC through the agent: a connection that opens with the HTTP/2 preface becomes a tunnel to the
model server (SPEC P7), so whatever `grpcio` does has to work end to end.
"""

import json
import queue
from concurrent import futures

import grpc
import numpy
import pytest
from conftest import exchange
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from kserve.protocol.grpc import grpc_predict_v2_pb2 as v2
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as v2_grpc

SECONDS = 30
SERVICE = "test.Echo"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def channel():
    """`channel(port)` opens one, with a connection of its own; closed after the test."""
    channels = []

    def open_to(port):
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        channels.append(grpc.insecure_channel(f"127.0.0.1:{port}", options))
        return channels[-1]

    yield open_to
    for one in channels:
        one.close()


class Server:
    """A gRPC server with an echo (bytes in, bytes out: no protoc) and the health service."""

    def __init__(self):
        self.health = health.HealthServicer()
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
        methods = {
            "Unary": grpc.unary_unary_rpc_method_handler(self._unary),
            "Stream": grpc.stream_stream_rpc_method_handler(self._stream),
        }
        handlers = grpc.method_handlers_generic_handler(SERVICE, methods)
        self._server.add_generic_rpc_handlers((handlers,))
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def stop(self):
        self._server.stop(None).wait(SECONDS)

    @staticmethod
    def _unary(request, context):
        if request == b"fail":
            context.set_trailing_metadata((("why", "asked to"),))
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as you wish")
        return request[::-1]

    @staticmethod
    def _stream(requests, _context):
        for request in requests:
            yield b"echo " + request


@pytest.fixture
def server():
    one = Server()
    yield one
    one.stop()


@pytest.fixture
def echo(agent, server, channel):
    """The channel to the echo server that goes through the agent."""
    return channel(agent(server.port).port)


@pytest.fixture
def iris(agent, kserve_server, channel):
    """KServe's V2 gRPC service, asked directly and through the agent."""
    ports = kserve_server.grpc_port, agent(kserve_server.grpc_port).port
    return [v2_grpc.GRPCInferenceServiceStub(channel(port)) for port in ports]


def test_the_kserve_server_is_live_over_grpc(iris):
    direct, through = (stub.ServerLive(v2.ServerLiveRequest(), timeout=SECONDS) for stub in iris)
    assert through == direct
    assert through.live


@pytest.mark.parametrize("raw", [False, True], ids=["typed contents", "raw contents"])
def test_a_model_of_the_kserve_server_infers_over_grpc(iris, raw):
    """The client may put the tensor into the message's typed field or into raw bytes."""
    flowers = numpy.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3], [5.9, 3.0, 4.2, 1.5]])
    request = v2.ModelInferRequest(model_name="iris", id="flower-7")
    tensor = request.inputs.add(name="measurements", datatype="FP64", shape=[3, 4])
    if raw:
        request.raw_input_contents.append(flowers.tobytes())
    else:
        tensor.contents.fp64_contents.extend(flowers.flatten())
    direct, through = (stub.ModelInfer(request, timeout=SECONDS) for stub in iris)
    assert through == direct
    assert through.id == "flower-7"
    if through.raw_output_contents:
        classes = numpy.frombuffer(through.raw_output_contents[0], numpy.int64).tolist()
    else:
        classes = list(through.outputs[0].contents.int64_contents)
    assert classes == [0, 2, 1]


def test_an_error_of_the_kserve_server_keeps_its_status_and_details(iris):
    found = []
    for stub in iris:
        with pytest.raises(grpc.RpcError) as error:
            stub.ModelMetadata(v2.ModelMetadataRequest(name="tulip"), timeout=SECONDS)
        found.append((error.value.code(), error.value.details()))
    assert found[0] == found[1]
    assert "tulip" in found[1][1]


def test_a_thousand_messages_go_back_and_forth_on_one_stream(echo):
    """Each message is sent only when the answer to the one before is there: nothing is held back in
    either direction until the stream ends."""
    requests = queue.SimpleQueue()
    stream = echo.stream_stream(f"/{SERVICE}/Stream")
    answers = stream(iter(requests.get, None), timeout=SECONDS)
    for number in range(1000):
        requests.put(b"%d" % number)
        assert next(answers) == b"echo %d" % number
    requests.put(None)
    assert list(answers) == []


def test_a_thousand_messages_in_flight_stay_in_order(echo):
    """The client does not wait: both directions are full at the same time."""
    stream = echo.stream_stream(f"/{SERVICE}/Stream")
    messages = [b"%d " % number + bytes(1000) for number in range(1000)]
    assert list(stream(iter(messages), timeout=SECONDS)) == [b"echo " + m for m in messages]


def test_a_large_unary_message_passes_both_ways(echo):
    """3 MiB, near grpc's own limit of 4: many times HTTP/2's window and the agent's buffers."""
    message = numpy.random.default_rng(7).bytes(3 * 1024 * 1024)
    assert echo.unary_unary(f"/{SERVICE}/Unary")(message, timeout=SECONDS) == message[::-1]


def test_calls_share_a_connection(echo):
    calls = [
        echo.unary_unary(f"/{SERVICE}/Unary").future(b"%d!" % n, timeout=SECONDS)
        for n in range(100)
    ]
    assert [call.result() for call in calls] == [(b"%d!" % n)[::-1] for n in range(100)]


def test_an_error_status_comes_with_its_trailers(echo):
    with pytest.raises(grpc.RpcError) as error:
        echo.unary_unary(f"/{SERVICE}/Unary")(b"fail", timeout=SECONDS)
    assert error.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert error.value.details() == "as you wish"
    assert ("why", "asked to") in error.value.trailing_metadata()


def test_the_health_service_is_reached_through_the_agent(server, echo):
    stub = health_pb2_grpc.HealthStub(echo)
    request = health_pb2.HealthCheckRequest(service="model")
    for status in (SERVING, NOT_SERVING, SERVING):
        server.health.set("model", status)
        assert stub.Check(request, timeout=SECONDS).status == status


def test_a_health_watch_sees_each_change_as_it_happens(server, echo):
    server.health.set("model", SERVING)
    request = health_pb2.HealthCheckRequest(service="model")
    changes = health_pb2_grpc.HealthStub(echo).Watch(request, timeout=SECONDS)
    assert next(changes).status == SERVING
    server.health.set("model", NOT_SERVING)
    assert next(changes).status == NOT_SERVING
    changes.cancel()


# The agent's own probe of kind grpc (SPEC E1, H1, H3)


def probe(port):
    """What the kubelet or queue-proxy gets."""
    headers = {"User-Agent": "kube-probe/1.31", "K-Network-Probe": "queue"}
    answer = exchange(port, "GET", "/", headers=headers)
    return answer.status, answer.body


def probe_environment(port, **grpc_probe):
    grpc_probe = {"port": port, **grpc_probe}
    probe = {"grpc": grpc_probe, "timeoutSeconds": 2, "periodSeconds": 1}
    return {"SERVING_READINESS_PROBE": json.dumps(probe)}


def test_the_container_probe_says_what_the_health_service_says(agent, server):
    """The agent's own minimal HTTP/2 exchange, against the server that defines the protocol."""
    proxied = agent(server.port, env=probe_environment(server.port))
    server.health.set("", SERVING)
    assert probe(proxied.port) == (200, b"queue")
    server.health.set("", NOT_SERVING)
    assert probe(proxied.port) == (503, b"")
    server.health.set("", SERVING)
    assert probe(proxied.port) == (200, b"queue")


def test_the_container_probe_asks_for_the_service_it_is_given(agent, server):
    proxied = agent(server.port, env=probe_environment(server.port, service="model"))
    server.health.set("", SERVING)
    assert probe(proxied.port) == (503, b""), "the health service does not know it yet"
    server.health.set("model", SERVING)
    assert probe(proxied.port) == (200, b"queue")


def test_the_container_probe_fails_when_the_server_is_gone(agent, server):
    proxied = agent(server.port, env=probe_environment(server.port))
    assert probe(proxied.port) == (200, b"queue")
    server.stop()
    assert probe(proxied.port) == (503, b"")
