"""The agent with a payload log in a bucket, what it counts, and its objects as others read them."""

import json
import re
import select
import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pyarrow
import pyarrow.parquet
from agents import Agent, exchange
from records import COLUMNS, csv_rows, read_row
from support import Handler, reserve_port, wait_until

FOLDER = "ns/iris/predictor/logs"
NAMES = ["--inference-service=iris", "--namespace=ns", "--component=predictor", "--endpoint=default"]


@dataclass
class Books:
    """What has become of events, both types together."""

    accepted: int
    sent: int
    failed: int
    waiting: int


class Logging(Agent):
    """An agent that logs what it serves into the bucket of `place`."""

    def __init__(self, place, component_port, flags, env):
        self.metrics_port = reserve_port()
        self.marshaller_port = reserve_port()
        common = [
            f"--log-url={place.url}", "--log-store-path=logs", "--threads=1", f"--metrics-port={self.metrics_port}",
            f"--log-marshaller-port={self.marshaller_port}",
        ]  # fmt: skip
        super().__init__(component_port, [*common, *NAMES, *flags], {**place.client.env, **(env or {})})

    def ask(self, body=b"{}", ce_id=None, **fields):
        headers = {"Content-Type": "application/json", **({"Ce-Id": ce_id} if ce_id is not None else {}), **fields}
        answer = exchange(self.port, "POST", "/v1/models/iris:predict", body, headers)
        assert answer.status == 200, answer
        return answer

    def metrics(self):
        text = exchange(self.metrics_port, "GET", "/metrics").body.decode()
        return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))

    def count(self, family, metrics=None):
        metrics = metrics or self.metrics()
        return sum(int(value) for name, value in metrics.items() if re.fullmatch(family + r"(\{.*\})?", name))

    def books(self):
        metrics = self.metrics()
        names = ["events_accepted_total", "events_sent_total", "events_failed_total", "work_queue_depth"]
        return Books(*(self.count(f"kserve_logger_{name}", metrics) for name in names))

    def settled(self, accepted):
        """The books when so many events were accepted and none waits."""

        def is_settled():
            books = self.books()
            assert books.accepted == books.sent + books.failed + books.waiting, books
            return books if (books.accepted, books.waiting) == (accepted, 0) else None

        return wait_until(is_settled, f"end of the {accepted} events", 20)


class Echo(Handler):
    """A model server that answers with what it was asked."""

    # Head and body in one write, so that the body does not wait for the acknowledgement of the head.
    wbufsize = 1 << 16

    def do_POST(self):
        self.answer(200, b"".join(self.body()), "application/octet-stream")


# What is in an object. JSON has members that are empty left out; here they are not.


def rows(form, file):
    return {"json": _of_json, "csv": csv_rows, "parquet": _of_parquet}[form](file)


def _of_json(file):
    records = json.loads(file)
    return records if isinstance(records, list) else [records]


def _of_parquet(file):
    table = pyarrow.parquet.read_table(pyarrow.BufferReader(file))
    assert table.column_names == COLUMNS
    return [read_row(values) for values in table.to_pylist()]


# A way to a store that can be closed, or hang.


class Relay:
    """A port that leads to another, if it is open; when it hangs, it takes all and gives nothing."""

    def __init__(self, target):
        self.port = reserve_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._target = target

    @contextmanager
    def open(self, hangs=False):
        listener = socket.create_server(("127.0.0.1", self.port))
        ended = threading.Event()

        def accept():
            while not ended.is_set():
                if select.select([listener], [], [], 0.02)[0]:
                    threading.Thread(target=self._lead, args=(listener.accept()[0], ended, hangs), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            listener.close()

    def _lead(self, client, ended, hangs):
        # One end may reset the connection.
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", self._target)) as store:
            other = {client: store, store: client}
            while not ended.is_set():
                for end in select.select([client, store], [], [], 0.02)[0]:
                    data = end.recv(1 << 16)
                    if not data:
                        return
                    if not hangs:
                        other[end].sendall(data)
