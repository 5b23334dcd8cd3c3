"""The marshaller service and whoever may be on the loopback (SPEC L9)."""

import socket
import time
from contextlib import ExitStack

import psutil
import pytest

from conftest import DEADLINE, running
from records import record


def connect(marshaller):
    return socket.create_connection((marshaller.host, marshaller.port), timeout=DEADLINE)


def assert_serves(marshaller):
    assert marshaller.file([record()]).body.startswith(b"{")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
def test_only_post_is_allowed(json_marshaller, method):
    answer = json_marshaller.request(method)
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("body", ["", "{", "{}", '[{"bytes":"*"}]', "[1]", '[{"id":"\\ud800"}]'])
def test_bad_json_is_answered_with_the_reason(json_marshaller, body):
    answer = json_marshaller.request("POST", body)
    assert answer.status == 400
    assert answer.body.startswith(b"bad JSON: ")


def test_what_a_length_says_takes_no_memory(json_marshaller):
    process = psutil.Process(json_marshaller.pid)
    assert_serves(json_marshaller)
    before = process.memory_info().rss
    for length in [99999999999999, 40 << 20]:
        with connect(json_marshaller) as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\nabc" % length)
            assert_serves(json_marshaller)
            assert process.memory_info().rss - before < 1 << 20


def test_many_small_values_are_refused_before_they_take_memory(json_marshaller):
    answer = json_marshaller.request("POST", "[" + "{}," * 10_000_000 + "{}]")
    assert answer.status == 413
    # What it took to receive it, and not what ten million records take.
    assert psutil.Process(json_marshaller.pid).memory_info().rss < 100 << 20


def test_half_open_requests_hold_up_nobody(json_marshaller):
    with ExitStack() as clients:
        for _ in range(10):
            client = clients.enter_context(connect(json_marshaller))
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\nabc")
        began = time.monotonic()
        assert_serves(json_marshaller)
        assert time.monotonic() - began < 5


def test_it_goes_on_when_there_was_no_descriptor():
    # Three of a program's own, the listener, the pair that ends it, and room for six connections.
    with running("json", descriptors=12) as marshaller:
        process = psutil.Process(marshaller.pid)
        with ExitStack() as clients:
            for _ in range(40):
                clients.enter_context(connect(marshaller))
            wait_for(lambda: process.num_fds() == 12, "connections up to the limit")
            before = sum(process.cpu_times()[:2])
            began = time.monotonic()
            wait_for(lambda: time.monotonic() - began > 1, "second")
            assert sum(process.cpu_times()[:2]) - before < 0.2, "it spins"
        assert_serves(marshaller)


def wait_for(condition, what):
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"there is still no {what}"
        time.sleep(0.01)
