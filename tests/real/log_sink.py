"""A log sink for the tests: a real HTTP server that parses what it gets with CloudEvents' own SDK."""

import threading
from contextlib import contextmanager

from cloudevents.http import from_http
from support import Handler, serving, wait_until

REQUEST = "org.kubeflow.serving.inference.request"
RESPONSE = "org.kubeflow.serving.inference.response"


class LogSink:
    """Answers each event with the status and header fields that `answer(event)` gives."""

    def __init__(self, answer):
        self.answer = answer
        self.port = None
        self._events = []
        self._lock = threading.Lock()

    @property
    def flag(self):
        return f"--log-url=http://127.0.0.1:{self.port}/events"

    def events(self):
        """Those that it was given so far, taken or not."""
        with self._lock:
            return list(self._events)

    def await_events(self, count):
        wait_until(lambda: len(self.events()) >= count, f"{count} events")
        events = self.events()
        assert len(events) == count, events
        return events

    def await_pair(self):
        """The two events of the one request that there was: what the client sent, and what it got."""
        request, response = sorted(self.await_events(2), key=lambda event: event["type"])
        assert (request["type"], response["type"]) == (REQUEST, RESPONSE)
        assert request["id"] == response["id"]
        return request, response

    def take(self, headers, body):
        event = from_http(headers, body, data_unmarshaller=lambda data: data)
        with self._lock:
            self._events.append(event)
        return self.answer(event)


def payload(event):
    """The bytes that it carries; the SDK has none for an empty body."""
    return event.data or b""


def taken(event):
    return 202, {}


@contextmanager
def log_sink(answer=taken):
    sink = LogSink(answer)

    class Events(Handler):
        def do_POST(self):
            status, headers = sink.take(dict(self.headers), b"".join(self.body()))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with serving(Events) as sink.port:
        yield sink
