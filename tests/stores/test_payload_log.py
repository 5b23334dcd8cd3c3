"""The payload log of a running agent in real stores: which objects there are, and what is in them (SPEC L8)."""

import base64
import random
import re
import signal
import time
import uuid
from datetime import datetime, timedelta, timezone

import pytest
from payload import FOLDER, Echo, rows
from records import COLUMNS, go_url
from support import wait_until

FORMS = ["json", "csv", "parquet"]
MEDIA = {"json": "application/json", "csv": "text/csv", "parquet": "application/octet-stream"}
# All 256 bytes, so no text in any encoding that is checked.
PAYLOAD = bytes(range(256)) + random.Random(1).randbytes(100_001)


def objects(place, form="json"):
    """Rows by key."""
    return {key: rows(form, place.store.read(place.url, key)[0]) for key in place.store.keys(place.url)}


def awaited(place, count, form="json"):
    """The same when there are so many."""
    wait_until(lambda: len(place.store.keys(place.url)) >= count, f"{count} objects", 20)
    found = objects(place, form)
    assert len(found) == count, found.keys()
    return found


def kind(record):
    return record["reqType"].rsplit(".", 1)[1]


@pytest.mark.parametrize("form", FORMS)
def test_each_payload_is_an_object_with_all_that_is_known_of_it(place, logging, http_server, form):
    flags = [
        f"--log-url={place.url}/pre/fix", f"--log-store-format={form}", "--source-uri=http://a:1/x?y=z",
        "--metadata-headers=X-Trace,x-none", "--metadata-annotations=k=v,text=a b=c\"d;é",
        "--logger-ca-cert-file=some/ca.crt", "--logger-tls-skip-verify=true",
    ]  # fmt: skip
    agent = logging(place, http_server(Echo), *flags)
    before = datetime.now(timezone.utc)
    assert agent.ask(PAYLOAD, "id-1", **{"x-trace": "t,\"1\""}).body == PAYLOAD
    after = datetime.now(timezone.utc)
    keys = {of: f"pre/fix/{FOLDER}/id-1-{of}.{form}" for of in ["request", "response"]}
    found = awaited(place, 2, form)
    assert sorted(found) == sorted(keys.values())
    for of, key in keys.items():
        assert place.store.read(place.url, key)[1] == MEDIA[form]
        (record,) = found[key]
        if form == "json":
            occurred = datetime.fromisoformat(re.sub(r"(\.\d{6})\d*Z", r"\1+00:00", record.pop("occurrenceTime")))
            assert before - timedelta(seconds=1) < occurred < after + timedelta(seconds=1)
        assert list(record) == COLUMNS
        assert base64.b64decode(record["bytes"], validate=True) == PAYLOAD
        log_url = f"{place.url}/pre/fix"
        skips = {"json": True, "csv": "true", "parquet": True}
        assert {name: value for name, value in record.items() if name not in ["bytes", "url", "sourceUri"]} == {
            "contentType": {"request": "application/json", "response": "application/octet-stream"}[of],
            "reqType": f"org.kubeflow.serving.inference.{of}",
            "id": "id-1",
            "inferenceService": "iris",
            "namespace": "ns",
            "component": "predictor",
            "endpoint": "default",
            "metadata": {"X-Trace": ['t,"1"']},
            "annotations": {"k": "v", "text": 'a b=c"d;é'},
            "certName": "some/ca.crt",
            "tlsSkipVerify": skips[form],
        }
        if form == "json":
            assert record["sourceUri"] == go_url("http", "a:1", "/x", "y=z")
            assert (record["url"]["Scheme"], record["url"]["Path"]) == (log_url.split(":")[0], "/pre/fix")
        else:
            assert (record["sourceUri"], record["url"]) == ("http://a:1/x?y=z", log_url)
    assert agent.settled(2).sent == 2


def test_the_example_servers_answers_are_logged_under_ids_of_their_own(place, logging, example_server):
    agent = logging(place, example_server)
    body = b'{"instances": [[6.8, 2.8, 4.8, 1.4]]}'
    answers = [agent.ask(body).body for _ in range(2)]
    found = awaited(place, 4)
    ids = {key.rsplit("/", 1)[1].removesuffix(f"-{kind(record)}.json") for key, [record] in found.items()}
    assert len(ids) == 2 and all(str(uuid.UUID(one)) == one and uuid.UUID(one).version == 4 for one in ids)
    payloads = sorted((kind(record), base64.b64decode(record["bytes"])) for [record] in found.values())
    assert payloads == sorted([("request", body)] * 2 + [("response", answer) for answer in answers])


@pytest.mark.parametrize(("flags", "folder"), [
    (["--namespace=", "--component=", "--inference-service=", "--endpoint="], "logs/"),
    (["--namespace=", "--log-store-path=/a//b/"], "iris/predictor/a/b/"),
    (["--log-store-path=../../out", "--component=."], "out/"),
])  # fmt: skip
def test_empty_parts_of_a_key_are_left_out(s3_place, logging, http_server, flags, folder):
    agent = logging(s3_place, http_server(Echo), *flags)
    agent.ask(b"x", "a")
    found = awaited(s3_place, 2)
    assert sorted(found) == [f"{folder}a-request.json", f"{folder}a-response.json"]
    [record] = found[f"{folder}a-request.json"]
    assert "annotations" not in record and "metadata" not in record and "tlsSkipVerify" not in record


HOSTILE = [
    "../../../etc/passwd", "..", ".", "/", "a/../b", "a\\..\\b", "%2e%2e%2fx", "x" * 5000, ".hidden", "_SUCCESS", "-rf",
    "a b", "a?b#c&d", "a'b\"c`d", "ü\xff", "CON", "a:b", "<x>", "{}[]|^", "$(id)", "a\tb",
]  # fmt: skip


def test_a_hostile_id_stays_a_name_in_its_folder(place, logging, http_server):
    agent = logging(place, http_server(Echo), "--log-mode=request")
    for one in HOSTILE:
        agent.ask(b"x", one)
    found = awaited(place, len(HOSTILE))
    for key, [record] in found.items():
        name = key.removeprefix(f"{FOLDER}/")
        assert key.startswith(f"{FOLDER}/")
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.:=@+-]{0,170}-request\.json", name), key
        assert len(key) < 300 and record["id"]
    ids = [record["id"] for [record] in found.values()]
    assert len(set(ids)) == len(HOSTILE) and {one for one in HOSTILE if one.isascii()} <= set(ids)
    assert agent.settled(len(HOSTILE)).sent == len(HOSTILE)


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_leaves_when_it_is_full_and_the_rest_with_the_agent(s3_place, logging, http_server, form):
    flags = ["--log-mode=request", "--log-batch-size=3", f"--log-store-format={form}"]
    agent = logging(s3_place, http_server(Echo), *flags)
    for number in range(7):
        agent.ask(b"%d" % number, f"id-{number}")
    names = [f"{FOLDER}/id-{first}-request.{form}" for first in [0, 3, 6]]
    assert sorted(awaited(s3_place, 2, form)) == names[:2]
    assert agent.books().waiting == 1
    agent.stop()
    found = objects(s3_place, form)
    assert sorted(found) == names
    contents = [[base64.b64decode(record["bytes"]) for record in found[name]] for name in names]
    assert contents == [[b"0", b"1", b"2"], [b"3", b"4", b"5"], [b"6"]]
    assert "were not delivered" not in agent.output()


def test_a_batch_that_is_not_full_leaves_after_its_interval(s3_place, logging, http_server):
    agent = logging(s3_place, http_server(Echo), "--log-batch-size=1000", "--log-batch-interval=700ms")
    began = time.monotonic()
    agent.ask(b"1", "first")
    agent.ask(b"2", "second")
    [(key, records)] = awaited(s3_place, 1).items()
    waited = time.monotonic() - began
    assert key == f"{FOLDER}/first-request.json" and 0.7 <= waited < 3, waited
    assert [(record["id"], kind(record)) for record in records] == [
        ("first", "request"), ("first", "response"), ("second", "request"), ("second", "response"),
    ]  # fmt: skip
    # The next one has an interval of its own.
    began = time.monotonic()
    agent.ask(b"3", "third")
    awaited(s3_place, 2)
    assert time.monotonic() - began >= 0.7


def test_a_batch_of_large_payloads_is_not_larger_than_half_of_the_queue(s3_place, logging, http_server):
    flags = ["--log-mode=request", "--log-batch-size=1000", "--log-queue-bytes=1000000"]
    agent = logging(s3_place, http_server(Echo), *flags)
    for number in range(20):
        agent.ask(PAYLOAD, f"id-{number:02}")
        # One after the other, as there is room for no more.
        wait_until(lambda: agent.books().waiting < 6, "room")
    agent.stop()
    found = [records for _, records in sorted(objects(s3_place).items())]
    assert [record["id"] for records in found for record in records] == [f"id-{number:02}" for number in range(20)]
    assert max(len(records) for records in found) == 5


def test_a_signal_during_the_load_stores_every_payload_that_was_answered(s3_place, logging, http_server):
    flags = ["--log-batch-size=50", "--log-batch-interval=1h", "--drain-period=200ms"]
    agent = logging(s3_place, http_server(Echo), *flags)
    for number in range(120):
        agent.ask(b"%d" % number, f"id-{number}")
        if number == 100:
            agent.signal(signal.SIGTERM)
    assert agent.wait(15) == 0
    logged = sorted((record["id"], kind(record)) for records in objects(s3_place).values() for record in records)
    assert logged == sorted((f"id-{number}", of) for number in range(120) for of in ["request", "response"])
