"""Requests that reach a connection to a real server just as the server closes it (SPEC P9): uvicorn, gunicorn and node keep
connections for a fixed time, and a POST that meets the end of it is lost and may not be repeated.
"""

import http.client
import random
import shutil
import sys
import threading
import time

import pytest
from support import Process, accepts, reserve_port

# How long the server keeps an idle connection, in seconds.
KEPT = 1
CLIENTS, ROUNDS = 100, 12

UVICORN = """
import sys, uvicorn
async def app(scope, receive, send):
    while (await receive()).get("more_body"): pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
uvicorn.run(app, port=int(sys.argv[1]), timeout_keep_alive=1, log_level="error", lifespan="off")
"""

NODE = """
const server = require("http").createServer((request, response) => {
  request.resume().on("end", () => response.end("ok"));
});
server.keepAliveTimeout = 1000;
server.listen(Number(process.argv[1]), "127.0.0.1");
"""

SERVERS = {"uvicorn": [sys.executable, "-c", UVICORN], "node": ["node", "-e", NODE]}


@pytest.fixture(params=SERVERS)
def server(request):
    arguments = SERVERS[request.param]
    if not shutil.which(arguments[0]):
        pytest.skip(f"{arguments[0]} is not installed")
    port = reserve_port()
    process = Process([*arguments, str(port)])
    process.await_start(lambda: accepts(port), "listening port")
    yield port
    process.kill()


def post_at_the_worst_gap(port, seed, start, failed, first):
    """Notes statuses that are not 200, of POSTs that come about when the server closes what they would go over: all clients at
    once, so that none finds a connection that another has just used."""
    random_of_client = random.Random(seed)
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for number in range(ROUNDS):
        start.wait()
        if number > 0:
            time.sleep(KEPT + random_of_client.uniform(-0.005, 0.01))
        try:
            client.request("POST", "/", b"{}")
            response = client.getresponse()
            response.read()
            status = response.status
        except OSError as error:
            status = error
        if status != 200:
            (failed if number > 1 else first).append((number, status))


def test_a_server_that_closes_idle_connections_fails_no_post_once_that_was_seen(server, agent):
    running = agent(server)
    failed, first = [], []
    shared = threading.Barrier(CLIENTS), failed, first
    clients = [
        threading.Thread(target=post_at_the_worst_gap, args=(running.port, seed, *shared)) for seed in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert not failed, f"of {CLIENTS * (ROUNDS - 2)}: {failed}"
    # Before the first close was seen nobody can know; a plain client loses one in five here.
    assert len(first) <= 2 * CLIENTS // 100, first
