"""The payload log of a running agent when the store or the marshaller is not as it should be (SPEC L4, L5, L8)."""

import base64
import gzip
import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace

import pytest
from azurite import KEY
from conftest import Client, Place, place_in
from mock import Store, client
from payload import FOLDER, Books, Echo, Relay, rows
from support import Handler, accepts, wait_until

MEBI = 1024 * 1024


def behind(relay, place):
    """The same bucket, reached over the relay."""
    direct = f"http://127.0.0.1:{place.store.port}"
    return replace(place, client=Client({k: v.replace(direct, relay.address) for k, v in place.client.env.items()}))


def stored(place):
    keys = place.store.keys(place.url)
    return [record for key in keys for record in rows("json", place.store.read(place.url, key)[0])]


def payloads(place):
    return sorted(base64.b64decode(record["bytes"]) for record in stored(place))


def lines(agent, word):
    return [line for line in agent.output().splitlines() if word in line]


# The store


def test_a_store_that_was_down_gets_everything_once_it_is_there(place, logging, http_server):
    relay = Relay(place.store.port)
    agent = logging(behind(relay, place), http_server(Echo), "--log-mode=request", "--workers=2")
    sent = [b"%03d" % number for number in range(60)]
    for body in sent[:30]:
        agent.ask(body)
    wait_until(lambda: agent.count("kserve_logger_delivery_retries_total") >= 2, "retry", 10)
    assert agent.books() == Books(accepted=30, sent=0, failed=0, waiting=30)
    with relay.open():
        for body in sent[30:]:
            agent.ask(body)
        assert agent.settled(60) == Books(accepted=60, sent=60, failed=0, waiting=0)
    assert payloads(place) == sent
    [line] = lines(agent, "log sink")
    assert "storing" in line and "events wait and are sent again" in line


def test_a_store_that_goes_away_under_load_loses_nothing(s3_place, logging, http_server):
    relay = Relay(s3_place.store.port)
    agent = logging(behind(relay, s3_place), http_server(Echo), "--log-batch-size=7", "--log-batch-interval=100ms")

    def ask(number):
        agent.ask(b"%03d" % number)
        books = agent.books()
        assert books.accepted == books.sent + books.failed + books.waiting

    with ThreadPoolExecutor(4) as clients:
        for start in range(0, 200, 50):
            with relay.open():
                list(clients.map(ask, range(start, start + 50)))
    with relay.open():
        assert agent.settled(400) == Books(accepted=400, sent=400, failed=0, waiting=0)
    # A store may have an object whose answer was lost; it is the same object.
    assert payloads(s3_place) == sorted([b"%03d" % number for number in range(200)] * 2)


def test_wrong_credentials_are_said_once_without_a_secret_and_tried_again(azure, logging, http_server):
    """For a minute: a permission that was just given takes some seconds to spread."""
    place = place_in(azure)
    wrong = replace(place, client=Client({**azure.env, "AZURE_STORAGE_ACCESS_KEY": "AAAA" + KEY[4:]}))
    agent = logging(wrong, http_server(Echo), "--log-batch-size=4")
    for _ in range(20):
        agent.ask(b"a-payload")
    wait_until(lambda: agent.count("kserve_logger_delivery_retries_total") >= 2, "retry", 20)
    assert agent.books() == Books(accepted=40, sent=0, failed=0, waiting=40)
    [line] = lines(agent, "log sink")
    assert "403: Auth" in line and "sent again" in line, line
    for secret in [KEY[4:20], "SharedKey", "a-payload"]:
        assert secret not in agent.output()


def test_a_bucket_that_is_not_there_is_counted_and_named(place, logging, http_server):
    missing = replace(place, url=place.url.replace("bucket-", "missing-"))
    agent = logging(missing, http_server(Echo))
    agent.ask()
    assert agent.settled(2).failed == 2
    [line] = lines(agent, "log sink")
    assert "404" in line and "missing-" in line, line


@pytest.mark.parametrize("hangs", [False, True])
def test_memory_is_bounded_when_the_store_takes_nothing(s3_place, logging, http_server, hangs):
    queue = 16 * MEBI
    relay = Relay(s3_place.store.port)
    flags = [f"--log-queue-bytes={queue}", "--log-batch-size=20", "--log-batch-interval=100ms"]
    agent = logging(behind(relay, s3_place), http_server(Echo), *flags)
    agent.ask(b"x" * 400_000)
    before = agent.rss()

    def load():
        with ThreadPoolExecutor(4) as clients:
            list(clients.map(lambda _: agent.ask(b"x" * 400_000), range(120)))
        books = agent.books()
        assert books.sent == books.failed == 0 and books.accepted == books.waiting
        assert agent.count("kserve_logger_events_dropped_total") == 242 - books.accepted > 150
        assert agent.count("kserve_logger_queue_bytes") <= queue
        # The payloads themselves, and a file in base64 for each delivery thread.
        assert agent.peak_rss() - before < queue * 2.4 + 8 * MEBI, agent.peak_rss() - before
        return books.waiting

    if not hangs:
        load()
        return
    with relay.open(hangs=True):
        waiting = load()
        began = time.monotonic()
        agent.stop()
        assert time.monotonic() - began < 12
    [line] = lines(agent, "ERROR]")
    assert line.endswith(f"payload log: {waiting} events were not delivered before the agent ended")


@pytest.mark.parametrize("is_down", [False, True])
def test_a_crash_with_a_queue_on_disk_loses_no_open_batch(s3_place, logging, http_server, tmp_path, is_down):
    relay = Relay(s3_place.store.port)
    flags = [f"--log-spool-dir={tmp_path}", "--log-batch-size=7"]
    # What was stored is acknowledged; the open batch is not.
    left = 60 if is_down else 4
    with nullcontext() if is_down else relay.open():
        agent = logging(behind(relay, s3_place), http_server(Echo), *flags)
        for number in range(30):
            agent.ask(b"%02d" % number)
        wait_until(lambda: agent.books().accepted == 60 and agent.books().waiting == left, "events")
        agent.kill()
    with relay.open():
        agent = logging(behind(relay, s3_place), http_server(Echo), *flags, "--log-batch-interval=100ms")
        assert agent.settled(left).sent == left
        wait_until(lambda: not list(tmp_path.glob("*.events")), "end of the segments", 10)
    assert agent.count("kserve_logger_spool_replayed_total") == left
    # Batches may be others than before the crash; what was stored then is there twice.
    logged = {(base64.b64decode(record["bytes"]), record["reqType"]) for record in stored(s3_place)}
    kinds = [f"org.kubeflow.serving.inference.{of}" for of in ["request", "response"]]
    assert logged == {(b"%02d" % number, kind) for number in range(30) for kind in kinds}


# The marshaller


class Marshaller(Handler):
    """Another service; a subclass says what it answers. Attributes are the class's."""

    wbufsize = 1 << 16
    script = []
    seen = []

    def do_POST(self):
        posted = b"".join(self.body())
        self.seen.append((self.path, self.headers["Content-Type"], posted))
        step = self.script.pop(0) if self.script else Marshaller.file
        step(self, posted)

    def file(self, posted, extension="json.gz"):
        packed = gzip.compress(posted)
        self.send_response(200)
        if extension is not None:
            self.send_header("X-Log-Marshal-Extension", extension)
        self.send_header("Content-Length", str(len(packed)))
        self.end_headers()
        self.wfile.write(packed)

    def status(code, **fields):
        def step(self, _):
            self.send_response(code)
            for name, value in {"Content-Length": "0", **fields}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()

        return step

    def close(self, _):
        self.close_connection = True

    def hang(self, _):
        time.sleep(1)
        self.close_connection = True


def scripted(*steps):
    return type("Scripted", (Marshaller,), {"script": list(steps), "seen": []})


def marshalled_by(logging, http_server, place, service, *flags):
    url = f"--log-marshaller-url=http://127.0.0.1:{http_server(service)}/make?a=b"
    return logging(place, http_server(Echo), url, "--log-mode=request", "--log-client-timeout=500ms", *flags)


def test_another_marshaller_makes_the_file_and_names_its_extension(place, logging, http_server):
    service = scripted()
    agent = marshalled_by(logging, http_server, place, service, "--log-batch-size=2", "--log-store-format=parquet")
    agent.ask(b"\x00\xff", "one")
    agent.ask(b"2", "two")
    assert agent.settled(2).sent == 2
    [(path, media, posted)] = service.seen
    assert (path, media) == ("/make?a=b", "application/json")
    assert [record["id"] for record in json.loads(posted)] == ["one", "two"]
    assert json.loads(posted)[0]["bytes"] == "AP8="
    [key] = place.store.keys(place.url)
    assert key == f"{FOLDER}/one-request.json.gz"
    assert gzip.decompress(place.store.read(place.url, key)[0]) == posted


def test_a_record_that_a_marshaller_fails_of_holds_up_no_other(s3_place, logging, http_server):
    class Choking(Marshaller):
        seen, script = [], []

        def do_POST(self):
            posted = b"".join(self.body())
            if base64.b64encode(b"poison") in posted:
                return self.answer(500, b"")
            self.file(posted, "json.gz")

    agent = marshalled_by(logging, http_server, s3_place, Choking, "--workers=1")
    for body in [b"poison", b"poison", *(b"%02d" % number for number in range(20))]:
        agent.ask(body)
    wait_until(lambda: agent.books().sent == 20, "all that is good", 10)
    assert agent.books() == Books(accepted=22, sent=20, failed=0, waiting=2)


def test_a_store_that_asks_for_ten_minutes_costs_no_event_and_is_left_alone(logging, http_server):
    class Busy(Store):
        puts = []

        def do_PUT(self):
            b"".join(self.body())
            self.puts.append(self.path)
            self.send_response(503)
            self.send_header("Retry-After", "600")
            self.send_header("Content-Length", "0")
            self.end_headers()

    place = Place(None, client(http_server(Busy)), "s3://bucket/logs")
    agent = logging(place, http_server(Echo), "--log-mode=request", "--workers=1")
    for _ in range(50):
        agent.ask()
    wait_until(lambda: len(Busy.puts) >= 8, "tries")
    assert agent.books() == Books(accepted=50, sent=0, failed=0, waiting=50)
    assert len(Busy.puts) == 8


@pytest.mark.parametrize("trust", ["SSL_CERT_FILE", "--logger-tls-skip-verify"])
def test_a_marshaller_by_https_makes_the_file(s3_place, logging, http_server, https_server, trust):
    service = scripted()
    port, file = https_server(service)
    env, flags = ({trust: str(file)}, []) if trust.isupper() else ({}, [trust])
    url = f"--log-marshaller-url=https://127.0.0.1:{port}/make"
    agent = logging(s3_place, http_server(Echo), url, "--log-mode=request", *flags, env=env)
    agent.ask(b"x")
    assert agent.settled(1).sent == 1
    assert payloads_gz(s3_place) == [b"x"]


def test_a_marshaller_that_nobody_vouches_for_gets_nothing(s3_place, logging, http_server, https_server):
    service = scripted()
    port, _ = https_server(service)
    url = f"--log-marshaller-url=https://127.0.0.1:{port}/make"
    agent = logging(s3_place, http_server(Echo), url, "--log-mode=request")
    agent.ask(b"x")
    wait_until(lambda: lines(agent, "log sink"), "line that says why")
    [line] = lines(agent, "log sink")
    assert "UnknownIssuer" in line and f"https://127.0.0.1:{port}/make" in line and "sent again" in line, line
    assert agent.books() == Books(accepted=1, sent=0, failed=0, waiting=1)
    assert not service.seen


@pytest.mark.parametrize("step", [
    Marshaller.status(503), Marshaller.status(429, Retry_After="1"), Marshaller.close, Marshaller.hang,
], ids=["503", "429", "closes", "hangs"])  # fmt: skip
def test_a_marshaller_that_may_recover_is_asked_again_for_the_same(s3_place, logging, http_server, step):
    service = scripted(step)
    agent = marshalled_by(logging, http_server, s3_place, service)
    agent.ask(b"x")
    assert agent.settled(1).sent == 1
    assert len(service.seen) == 2 and service.seen[0] == service.seen[1]
    assert payloads_gz(s3_place) == [b"x"]


def payloads_gz(place):
    keys = place.store.keys(place.url)
    files = [json.loads(gzip.decompress(place.store.read(place.url, key)[0])) for key in keys]
    return [base64.b64decode(record["bytes"]) for file in files for record in file]


@pytest.mark.parametrize(("step", "reason"), [
    (Marshaller.status(400), "status 400"),
    (Marshaller.status(302, Location="/elsewhere"), "status 302"),
    (lambda self, posted: self.file(posted, "../../x"), "X-Log-Marshal-Extension"),
    (lambda self, posted: self.file(posted, "a/b"), "X-Log-Marshal-Extension"),
    (lambda self, posted: self.file(posted, ""), "X-Log-Marshal-Extension"),
], ids=["400", "302", "climbs", "folder", "empty"])  # fmt: skip
def test_a_marshaller_that_refuses_costs_its_batch_and_no_other(s3_place, logging, http_server, step, reason):
    service = scripted(step)
    agent = marshalled_by(logging, http_server, s3_place, service)
    agent.ask(b"first")
    agent.settled(1)
    agent.ask(b"second")
    assert agent.settled(2) == Books(accepted=2, sent=1, failed=1, waiting=0)
    assert payloads_gz(s3_place) == [b"second"]
    [line] = lines(agent, "log sink")
    assert reason in line and "/make" in line and "given up" in line, line


def test_without_an_extension_a_file_is_json(s3_place, logging, http_server):
    service = scripted(lambda self, posted: self.file(posted, None))
    marshalled_by(logging, http_server, s3_place, service).ask(b"x", "a")
    wait_until(lambda: s3_place.store.keys(s3_place.url) == [f"{FOLDER}/a-request.json"], "object")


def test_no_marshaller_is_started_and_its_port_is_of_no_account(s3_place, logging, http_server):
    agent = logging(s3_place, http_server(Echo))
    agent.ask(b"x")
    assert agent.settled(2).sent == 2
    assert not accepts(agent.marshaller_port)
    taken = logging(s3_place, http_server(Echo), f"--log-marshaller-port={http_server(scripted())}")
    taken.ask(b"x")
    assert taken.settled(2).sent == 2
    assert not lines(taken, "marshaller-port")


def test_a_path_in_a_bucket_is_of_no_use_without_a_bucket(s3_place, logging, http_server):
    agent = logging(s3_place, http_server(Echo), f"--log-url=http://127.0.0.1:{http_server(Marshaller)}")
    assert len(lines(agent, "--log-store-path is not used")) == 1


def test_a_permission_that_spreads_late_costs_no_event(logging, http_server, s3_place):
    refusals = iter(range(6))

    class Late(Store):
        def do_PUT(self):
            list(self.body())
            if next(refusals, None) is not None:
                return self.answer(403, b"<Error><Code>AccessDenied</Code></Error>")
            self.answer(200, b"")

    env = {**s3_place.client.env, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{http_server(Late)}"}
    agent = logging(replace(s3_place, client=Client(env)), http_server(Echo))
    agent.ask()
    assert agent.settled(2) == Books(accepted=2, sent=2, failed=0, waiting=0)
