"""WebSocket through the agent: after 101 the connection is a two-way tunnel (SPEC P7)."""

import http
import queue
import random
import threading

import pytest
from conftest import exchange
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import serve

SECONDS = 30
MEBIBYTE = 1024 * 1024


class Echo:
    """Sends back what it gets; `close 4001 why` makes it close with that code and reason."""

    def __init__(self):
        self.closes = queue.SimpleQueue()
        self._server = serve(
            self._converse, "127.0.0.1", 0, process_request=self._admit, max_size=2 * MEBIBYTE
        )
        self.port = self._server.socket.getsockname()[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self):
        self._server.shutdown()

    def _converse(self, connection):
        try:
            for message in connection:
                if isinstance(message, str) and message.startswith("close "):
                    _, code, reason = message.split(" ", 2)
                    connection.close(int(code), reason)
                else:
                    connection.send(message)
        except ConnectionClosed:
            pass
        self.closes.put((connection.close_code, connection.close_reason))

    @staticmethod
    def _admit(connection, request):
        if request.path == "/closed-to-you":
            return connection.respond(http.HTTPStatus.FORBIDDEN, "no entry\n")
        return None


@pytest.fixture
def echo():
    server = Echo()
    yield server
    server.stop()


@pytest.fixture(params=["deflate", None], ids=["compressed", "plain"])
def client(request, agent, echo):
    """Connected through the agent, with the extension that most clients ask for and without it."""
    url = f"ws://127.0.0.1:{agent(echo.port).port}/chat?room=1"
    options = {"compression": request.param, "max_size": 2 * MEBIBYTE, "open_timeout": SECONDS}
    with connect(url, proxy=None, close_timeout=SECONDS, **options) as connection:
        yield connection


def test_text_and_binary_messages_come_back(client):
    for message in ("hello", "", "Füße 花", b"\x00\xff", b""):
        client.send(message)
        assert client.recv(SECONDS) == message


def test_a_message_of_a_mebibyte_comes_back(client):
    message = random.Random(7).randbytes(MEBIBYTE)
    client.send(message)
    assert client.recv(SECONDS) == message


def test_many_messages_stay_in_order(client):
    for number in range(1000):
        client.send(str(number))
    assert [client.recv(SECONDS) for _ in range(1000)] == [str(n) for n in range(1000)]


def test_a_ping_is_answered_with_its_pong(client):
    for payload in (b"", b"still there?"):
        assert client.ping(payload).wait(SECONDS)


def test_the_servers_close_code_reaches_the_client(client):
    client.send("close 4001 too many flowers")
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(SECONDS)
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "too many flowers")
    assert closed.value.rcvd_then_sent, "the server began the close"


def test_the_clients_close_code_reaches_the_server(client, echo):
    client.close(4002, "enough")
    assert echo.closes.get(timeout=SECONDS) == (4002, "enough")
    assert client.close_code == 4002


def test_a_client_that_vanishes_is_noticed_by_the_server(client, echo):
    """No close frame, only the end of the connection: 1006 is what the protocol calls that."""
    client.socket.close()
    assert echo.closes.get(timeout=SECONDS)[0] == 1006


def test_a_refused_upgrade_is_a_normal_response(agent, echo):
    port = agent(echo.port).port
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{port}/closed-to-you", proxy=None, open_timeout=SECONDS)
    assert refused.value.response.status_code == 403
    assert refused.value.response.body == b"no entry\n"


def test_a_server_that_wants_an_upgrade_may_refuse_a_plain_request(agent, echo):
    """`websockets` answers 426 with `Upgrade: websocket`, a field of the hop between the agent and
    the server; the status and the explanation are what has to arrive."""
    port = agent(echo.port).port
    direct, through = (exchange(p, "GET", "/chat") for p in (echo.port, port))
    assert (through.status, through.body) == (426, direct.body)
