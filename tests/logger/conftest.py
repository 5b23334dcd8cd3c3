"""The log marshaller service as a program of its own, for tests that read its files with other people's readers.

`MARSHALLER_EXAMPLE` names the program. Without it nothing is tested, so its absence is an error and not a skip.
"""

import http.client
import json
import os
import resource
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

# Longest wait for one answer.
DEADLINE = 60.0
PROGRAM = "MARSHALLER_EXAMPLE"


def pytest_configure():
    path = os.environ.get(PROGRAM)
    if not path:
        raise pytest.UsageError(f"{PROGRAM} is not set; `make test-logger` sets it")
    if not os.access(path, os.X_OK):
        raise pytest.UsageError(f"{PROGRAM}={path} is not a program that can be run")


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


@dataclass
class Marshaller:
    """A running service."""

    host: str
    port: int
    pid: int

    def request(self, method, body=None):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=DEADLINE)
        try:
            connection.request(method, "/marshal", body)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def file(self, records):
        """The file of these records, whose extension is checked by whoever asked for the format."""
        answer = self.request("POST", json.dumps(records))
        assert answer.status == 200, answer.body
        return answer


@contextmanager
def running(form, descriptors=None):
    """A service that makes such files; `descriptors`: it may have no more than these."""

    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    program = [os.environ[PROGRAM], form]
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, text=True, preexec_fn=limit if descriptors else None
    ) as process:
        try:
            url = urlsplit(process.stdout.readline().strip())
            yield Marshaller(url.hostname, url.port, process.pid)
            assert process.poll() is None, "it has ended"
        finally:
            process.kill()


@pytest.fixture(scope="module")
def json_marshaller():
    with running("json") as marshaller:
        yield marshaller


@pytest.fixture(scope="module")
def csv_marshaller():
    with running("csv") as marshaller:
        yield marshaller


@pytest.fixture(scope="module")
def parquet_marshaller():
    with running("parquet") as marshaller:
        yield marshaller
