"""The agent's metrics as Prometheus' own client library reads them: each is in the README's table, and
each of them moves (SPEC O1).

Not here: what makes the payload log's move (`log_scenes`) and the puller's (`model_list`).
"""

import http.client
import http.server
import json
import re
import signal
import socket
import threading
from pathlib import Path

import log_scenes
import model_list
import pytest
from conftest import exchange
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus
from support import reserve_port, wait_until
from test_model_server import FLOWERS

README = Path(__file__).parents[2] / "README.md"
ROW = re.compile(r"^\| `([a-z_]+)` \| (counter|gauge|histogram|info) \|(.*?)\| .+ \|$", re.MULTILINE)
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
# They take a bug of the agent's, a sink that forgets requests, or a disk that damages them: tests/sockets have those.
NEVER = {
    "kserve_agent_panics_total",
    "kserve_logger_pipelining_stopped_total",
    "kserve_logger_spool_corrupt_total",
}
V1 = "/v1/models/iris:predict"
# Nobody listens there, and nothing is sent in the tests that use it.
LOG_URL = "--log-url=http://127.0.0.1:9/"


@pytest.fixture
def place(tmp_path):
    place = model_list.Place(tmp_path)
    place.list()
    return place


@pytest.fixture
def repository(http_server):
    """The port of a server for models."""
    model_list.Repository.over.clear()
    yield http_server(model_list.Repository)
    model_list.Repository.over.set()


@pytest.fixture
def everything(tmp_path, place):
    """Flags that turn on all parts that have metrics."""
    return ["--enable-batcher", LOG_URL, f"--log-spool-dir={tmp_path / 'spool'}", *place.flags()]


def documented():
    """Type and labels, with the values that the README lists, of each metric in its table."""
    rows = {}
    for name, kind, labels in ROW.findall(README.read_text()):
        # A name is followed by its values if it has a colon.
        parts = re.findall(r"`([^`]+)`(:?)", labels)
        labelled, listed = {}, None
        for text, colon in parts:
            if colon:
                listed = labelled[text] = set()
            elif listed is None:
                labelled[text] = None
            else:
                listed.add(text)
        rows[name] = (kind, labelled)
    return rows


def scrape(port, parse=prometheus, accept="text/plain"):
    answer = exchange(port, "GET", "/metrics", headers={"Accept": accept})
    assert answer.status == 200
    return list(parse(answer.body.decode()))


def full_name(family):
    """The parsers take the suffix that the README has."""
    return f"{family.name}_total" if family.type == "counter" else family.name


def values(port):
    return {(s.name, *sorted(s.labels.items())): s.value for f in scrape(port) for s in f.samples}


@pytest.fixture
def watched(agent, example_server):
    """Starts agents in front of the example server; `(agent, port of its metrics)`."""

    def start(*flags, server=example_server):
        port = reserve_port()
        # The last of a repeated flag wins.
        one = agent(server, *flags, f"--metrics-port={port}")
        wait_until(lambda: listens(port), "metrics port")
        return one, port

    return start


def listens(port):
    try:
        return exchange(port, "GET", "/metrics").status == 200
    except OSError:
        return False


@pytest.mark.parametrize("all_parts", [False, True])
def test_both_formats_parse_and_say_the_same(watched, everything, all_parts):
    _, port = watched(*(everything if all_parts else []))
    plain = {full_name(f): f for f in scrape(port)}
    opened = {full_name(f): f for f in scrape(port, openmetrics, OPENMETRICS)}
    assert plain.keys() == {f"{n}_info" if f.type == "info" else n for n, f in opened.items()}
    for name, family in plain.items():
        other = opened.get(name) or opened[name.removesuffix("_info")]
        assert family.documentation == other.documentation
        assert {s.name for s in family.samples} == {s.name for s in other.samples}


def test_the_readme_has_each_metric_with_its_type_and_labels(watched, everything, place, repository):
    one, port = watched(*everything, server=repository)
    # What is said of a model is there when there is one.
    model_list.troubles(place, repository)(one, lambda: values(port))
    rows = documented()
    families = {full_name(f): f for f in scrape(port)}
    assert families.keys() == rows.keys()
    for name, (kind, labels) in rows.items():
        family = families[name]
        assert family.type == ("gauge" if kind == "info" else kind), name
        shown = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                if label != "le":
                    shown.setdefault(label, set()).add(value)
        assert shown.keys() == labels.keys(), name
        for label, listed in labels.items():
            assert listed is None or shown[label] == listed, name


def test_histograms_are_what_prometheus_expects(watched):
    one, port = watched("--enable-batcher", "--max-latency=1")
    for _ in range(20):
        assert exchange(one.port, "POST", V1, json.dumps({"instances": FLOWERS})).status == 200
    for family in scrape(port):
        if family.type != "histogram":
            continue
        buckets = [s for s in family.samples if s.name.endswith("_bucket")]
        bounds = [float(s.labels["le"]) for s in buckets]
        counts = [s.value for s in buckets]
        [count] = [s.value for s in family.samples if s.name.endswith("_count")]
        assert bounds == sorted(bounds) and bounds[-1] == float("inf")
        assert counts == sorted(counts) and counts[-1] == count


# A call that is under way is seen only if it takes its time.
@pytest.mark.parametrize("example_server", [200], indirect=True)
def test_every_metric_moves(watched, example_server, tmp_path, place, repository, http_server):
    """One agent for each kind of trouble; what none of them moves would be there for nothing."""
    moved = set()

    def run(start, provoke):
        one, port = start
        before = values(port)
        seen = [before]
        # A counter that is not 0 has moved before anybody looked.
        moved.update(key for key, value in before.items() if key[0].endswith("_total") and value > 0)

        def look():
            seen.append(values(port))
            return seen[-1]

        provoke(one, look)
        look()
        for now in seen[1:]:
            moved.update(key for key, value in now.items() if value != before.get(key))

    run(watched("--enable-batcher", "--max-latency=200", "--max-batchsize=2"), batches)
    run(watched("--enable-batcher", "--max-latency=50", server=http_server(Indivisible)), indivisible)
    run(watched("--max-connections=2", "--threads=1"), connections)
    run(watched(server=reserve_port()), unreachable)
    run(watched(server=server_that_hangs_up()), retries)
    run(watched("--drain-period=60s"), drains)
    run(watched(*place.flags(), server=repository), model_list.troubles(place, repository))
    log_scenes.play(lambda provoke, *flags, **server: run(watched(*flags, **server), provoke), example_server, tmp_path)

    names = {name for name, *_ in moved}

    def has_moved(name, kind):
        return any(n in names for n in ([f"{name}_count", f"{name}_sum"] if kind == "histogram" else [name]))

    # These are what they are from the start.
    fixed = {"kserve_agent_build_info", "process_start_time_seconds", "process_max_fds"}
    fixed |= {"kserve_agent_connections_limit", "kserve_agent_batch_queue_limit", "kserve_logger_queue_limit_bytes"}
    fixed |= {"kserve_logger_spool_limit_bytes"}
    still = {n for n, (kind, _) in documented().items() if not has_moved(n, kind)} - fixed - NEVER
    assert not still
    assert not log_scenes.each_reason() - moved


class Indivisible(http.server.BaseHTTPRequestHandler):
    """A model server that answers whatever it is asked with one long prediction."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"predictions": ["a" * 7_000_000]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def indivisible(one, look):
    body = b'{"instances": [1, 2]}'
    request = b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (V1.encode(), len(body), body)
    # Three batches that can't be divided, and a request with which the batcher looks at what has come back.
    for count in (2, 2, 2, 1):
        clients = [socket.create_connection(("127.0.0.1", one.port)) for _ in range(count)]
        for client in clients:
            client.sendall(request)
        for client in clients:
            assert client.recv(12) == b"HTTP/1.1 200"
        # What they do not take is held.
        look()
        for client in clients:
            while client.recv(1 << 20)[-2:] != b"]}":
                pass
            client.close()


def batches(one, look):
    def post(body):
        client = http.client.HTTPConnection("127.0.0.1", one.port)
        client.request("POST", V1, body, {"Content-Type": "application/json"})
        return client

    single = json.dumps({"instances": FLOWERS[:1]})
    waiting = post(single)
    wait_until(lambda: look()[("kserve_agent_batch_queue_requests",)] == 1, "request in the queue")
    assert waiting.getresponse().status == 200
    # The server knows no such flower, so both are asked again alone.
    bad = [post(json.dumps({"instances": [[1, 2]]})), post(single)]
    assert {client.getresponse().status for client in bad} == {400, 200}
    assert exchange(one.port, "GET", "/v2/models/iris").status == 200
    under_way = post(json.dumps({"instances": FLOWERS[:2]}))
    wait_until(lambda: look()[("kserve_agent_batches_in_flight",)] == 1, "batch at the server")
    assert under_way.getresponse().status == 200


def connections(one, look):
    idle = [socket.create_connection(("127.0.0.1", one.port)) for _ in range(2)]
    for client in idle:
        client.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(9) == b"HTTP/1.1 "
    # A third needs a place; operators have their own.
    assert exchange(one.port, "GET", "/v2/health/live").status == 200
    assert look()[("kserve_agent_connections_evicted_total",)] >= 1
    for client in idle:
        client.close()
    # The HTTP/2 preface opens a tunnel.
    with socket.create_connection(("127.0.0.1", one.port)) as tunnel:
        tunnel.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        wait_until(lambda: look()[("kserve_agent_tunnels_opened_total",)] == 1, "tunnel")
    assert exchange(one.port, "GET", "/", headers={"User-Agent": "kube-probe/1.31"}).status == 400
    with socket.create_connection(("127.0.0.1", one.port)) as garbled:
        garbled.sendall(b"nonsense\r\n\r\n")
        assert b" 400 " in garbled.recv(1000)


def unreachable(one, look):
    assert exchange(one.port, "GET", "/").status == 502


def server_that_hangs_up():
    """The port of a server that answers one request of each connection and drops the next."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                connection.recv(10_000)

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


def retries(one, look):
    client = http.client.HTTPConnection("127.0.0.1", one.port)
    for _ in range(2):
        client.request("GET", "/")
        assert client.getresponse().read() == b""


def drains(one, look):
    one.signal(signal.SIGTERM)
    wait_until(lambda: look()[("kserve_agent_draining",)] == 1, "drain")
