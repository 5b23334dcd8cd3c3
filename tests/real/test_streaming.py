"""Streams in both directions with bounded memory (SPEC P2)."""

import hashlib
import http.client
import random
import threading
import time
from pathlib import Path

import pytest
from conftest import exchange
from support import Handler, wait_until

GIBIBYTE = 1024 * 1024 * 1024
PIECE = 1024 * 1024
# What the issue promises for an upload of 1 GiB.
MEMORY = 8 * 1000 * 1000
TCP = Path("/proc/sys/net/ipv4")


class Events(Handler):
    """Produces its second event only when a client has asked for it with another request."""

    wanted: threading.Event

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        self._send(b"data: first\n\n")
        if self.wanted.wait(60):
            self._send(b"data: last\n\n")
        if self.path == "/chunked":
            self.wfile.write(b"0\r\n\r\n")

    def do_POST(self):
        self.wanted.set()
        self.answer(200, b"")

    def _send(self, event):
        if self.path == "/chunked":
            event = b"%x\r\n%s\r\n" % (len(event), event)
        self.wfile.write(event)


@pytest.mark.parametrize("framing", ["chunked", "until-close"])
def test_an_event_reaches_the_client_before_the_next_is_produced(agent, http_server, framing):
    """No clock in it: the server waits for the client, who waits for the first event. An agent that
    held the event back would leave both waiting until the client gives up."""
    handler = type("OneStream", (Events,), {"wanted": threading.Event()})
    port = agent(http_server(handler)).port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", f"/{framing}")
        response = connection.getresponse()
        assert response.getheader("Content-Type") == "text/event-stream"
        assert response.readline() + response.readline() == b"data: first\n\n"
        assert not handler.wanted.is_set()
        assert exchange(port, "POST", "/go").status == 200
        assert response.read() == b"data: last\n\n"
    finally:
        connection.close()


class Dialogue(Handler):
    """Answers each chunk of the request while the request is still being sent."""

    def do_POST(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in self.body():
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece.upper()))
        self.wfile.write(b"0\r\n\r\n")


def test_a_request_and_its_answer_stream_at_the_same_time(agent, http_server):
    connection = http.client.HTTPConnection(
        "127.0.0.1", agent(http_server(Dialogue)).port, timeout=20
    )
    try:
        connection.putrequest("POST", "/")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        connection.send(b"5\r\nfirst\r\n")
        response = connection.response_class(connection.sock, method="POST")
        response.begin()
        assert response.read(5) == b"FIRST"
        connection.send(b"4\r\nlast\r\n0\r\n\r\n")
        assert response.read() == b"LAST"
    finally:
        connection.close()


class Sink(Handler):
    """Answers with the number of bytes it was sent and their hash."""

    def do_POST(self):
        digest, size = hashlib.sha256(), 0
        for piece in self.body():
            digest.update(piece)
            size += len(piece)
        self.answer(200, f"{size} {digest.hexdigest()}".encode())


class Upload:
    """A body of pieces that all differ, made while it is sent; keeps its own hash."""

    def __init__(self, size):
        self.size = size
        self._digest = hashlib.sha256()

    def __iter__(self):
        noise = random.Random(7).randbytes(PIECE - 8)
        for number in range(self.size // PIECE):
            piece = number.to_bytes(8) + noise
            self._digest.update(piece)
            yield piece

    def receipt(self):
        return f"{self.size} {self._digest.hexdigest()}".encode()


class Watch:
    """Samples the agent's resident memory every 10 ms while the block runs."""

    def __init__(self, agent):
        self.most = 0
        self._agent = agent
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self):
        while not self._over.wait(0.01):
            self.most = max(self.most, self._agent.rss())

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_an_upload_of_a_gibibyte_does_not_grow_the_agent(agent, http_server, framing):
    """The memory is compared with that after a first small upload, which pays for the buffers that
    stay: what is left is the growth by size."""
    proxied = agent(http_server(Sink))

    def upload(size):
        body = Upload(size)
        headers = {"Content-Length": str(size)} if framing == "content-length" else {}
        answer = exchange(proxied.port, "POST", "/sink", body, headers, timeout=100)
        assert (answer.status, answer.body) == (200, body.receipt())

    upload(PIECE)
    before = proxied.rss()
    with Watch(proxied) as watch:
        upload(GIBIBYTE)
    assert watch.most - before < MEMORY
    assert proxied.peak_rss() - before < MEMORY


class Source(Handler):
    """Sends a gibibyte of zeros as fast as it is taken, and counts what was."""

    taken: list

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(GIBIBYTE))
        self.end_headers()
        for _ in range(GIBIBYTE // PIECE):
            self.wfile.write(bytes(PIECE))
            self.taken.append(PIECE)

    def do_POST(self):
        self.answer(200, b"")


def socket_buffers():
    """What the kernel may hold, in bytes: a send and a receive buffer for each of the two
    connections."""
    most = (int((TCP / name).read_text().split()[-1]) for name in ("tcp_wmem", "tcp_rmem"))
    return 2 * sum(most)


def test_a_download_that_the_client_does_not_read_waits_in_the_server(agent, http_server):
    """Back-pressure: the client takes the head and then nothing until the server has stood still
    for half a second, which is when everything in between is full. Then it takes all, and none is
    missing. (On a machine so slow that half a second proves nothing the test is weaker; it does not
    fail.)
    """
    handler = type("OneSource", (Source,), {"taken": []})
    proxied = agent(http_server(handler))
    exchange(proxied.port, "POST", "/")  # Pays for the buffers that stay.
    before = proxied.rss()
    connection = http.client.HTTPConnection("127.0.0.1", proxied.port, timeout=60)
    last = {"taken": 0, "since": time.monotonic()}

    def stands_still():
        if (taken := len(handler.taken)) != last["taken"]:
            last.update(taken=taken, since=time.monotonic())
        return taken and time.monotonic() - last["since"] > 0.5

    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        wait_until(stands_still, "standstill of the server", 30)
        assert sum(handler.taken) < socket_buffers() + MEMORY
        with Watch(proxied) as watch:
            size = sum(len(piece) for piece in iter(lambda: response.read(PIECE), b""))
    finally:
        connection.close()
    assert size == GIBIBYTE
    assert watch.most - before < MEMORY
    assert proxied.peak_rss() - before < MEMORY
