"""Real stores, the agent's client for them as the programs `examples/store.rs` and `examples/pull.rs`, and the agent that logs
into them.

`STORE_EXAMPLE` and `PULL_EXAMPLE` name those programs, `KSERVE_AGENT` and `MODEL_SERVER_EXAMPLE` the agent and a server,
`AZURITE` and `FAKE_GCS_SERVER` the servers of Azure and Google; `make test-stores` sets all of them. S3 is moto, from the same
environment as pytest.
"""

import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

for folder in ["real", "logger"]:
    sys.path.append(str(Path(__file__).parents[1] / folder))

from agents import check_programs, model_server  # noqa: E402
from azurite import Azure  # noqa: E402
from fakegcs import Gcs  # noqa: E402
from https import serving_https  # noqa: E402
from motoserver import S3  # noqa: E402
from payload import Logging  # noqa: E402
from support import serving  # noqa: E402

# No metadata server of the machine that the tests run on is asked: nobody listens on port 1.
SURROUNDINGS = {
    "PATH": os.environ["PATH"],
    "AWS_EC2_METADATA_DISABLED": "true",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1:1",
}

# Characters that a URL, a query, XML or a signature may trip over, each in a key of its own.
AWKWARD = ["a b", "a+b", "ü/ß.json", "100%", "a%2Fb", "a&b=c", "q?x", "h#x", "a'b\"c", "<&>", "~-._", "a:b@c,d;e!$()*", "[{}]|^`"]


def pytest_configure():
    for name in ["STORE_EXAMPLE", "PULL_EXAMPLE"]:
        path = os.environ.get(name)
        if not path or not os.access(path, os.X_OK):
            raise pytest.UsageError(f"{name}={path} is not a program that can be run; `make test-stores` sets it")
    check_programs("test-stores")


@dataclass
class Outcome:
    """What the program has said."""

    code: int
    output: bytes
    errors: str

    @property
    def paths(self):
        """Of a listing."""
        return [line.split("\t")[1].strip('"') for line in self.output.decode().splitlines()]


@dataclass
class Client:
    """A program, with an environment of its own: no credentials of whoever runs the tests."""

    env: dict = field(default_factory=dict)
    program: str = "STORE_EXAMPLE"

    def start(self, *arguments, **env):
        return subprocess.Popen(
            [os.environ[self.program], *map(str, arguments)],
            env={**SURROUNDINGS, **self.env, **{name: text for name, text in env.items() if text}},
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments, **env):
        program = self.start(*arguments, **env)
        output, errors = program.communicate(timeout=50)
        self._check_secrets(errors.decode(), {**self.env, **env})
        return Outcome(program.returncode, output, errors.decode())

    @staticmethod
    def _check_secrets(errors, env):
        """Nothing that lets anybody in is in a message, nor a part of it."""
        names = [name for name in env if name.endswith(("SECRET", "_TOKEN", "ACCESS_KEY")) and env[name]]
        for secret in [*map(env.get, names), "X-Amz-", "sig=", "eyJ"]:
            assert secret[:16] not in errors, errors

    def ok(self, *arguments, **env):
        outcome = self.run(*arguments, **env)
        assert outcome.code == 0, outcome.errors
        return outcome


@dataclass
class Place:
    """A bucket of a store that runs, and the client with the right to use it."""

    store: Any
    client: Client
    url: str


@pytest.fixture(scope="session")
def s3():
    with S3() as store:
        yield store


@pytest.fixture(scope="session")
def azure():
    if not os.access(os.environ.get("AZURITE", ""), os.X_OK):
        pytest.skip("Azurite is not installed: it needs Node and npm")
    with Azure() as store:
        yield store


@pytest.fixture(scope="session")
def gcs():
    if not os.access(os.environ.get("FAKE_GCS_SERVER", ""), os.X_OK):
        pytest.skip("fake-gcs-server is not installed: it needs Go")
    with Gcs() as store:
        yield store


@pytest.fixture(params=["s3", "azure", "gcs"])
def place(request):
    """An empty bucket of each store in turn."""
    return place_in(request.getfixturevalue(request.param))


@pytest.fixture
def s3_place(s3):
    """An empty bucket, for what is the same in every store."""
    return place_in(s3)



def place_in(store):
    return Place(store, Client(store.env), store.url(store.make_bucket()))


@pytest.fixture(scope="session")
def example_server():
    """The port of the example model server."""
    with model_server() as port:
        yield port


@pytest.fixture
def logging():
    """`logging(place, component_port, *flags)` starts an agent that logs into a bucket; in the end it is killed."""
    agents = []

    def start(place, component_port, *flags, env=None):
        agents.append(Logging(place, component_port, flags, env))
        return agents[-1]

    yield start
    for one in agents:
        one.kill()
        print(one.output())  # Shown by pytest when the test has failed.
        assert "panic" not in one.output()


@pytest.fixture
def http_server():
    """`http_server(HandlerClass)` serves it, one thread per connection, and gives the port."""
    with ExitStack() as servers:
        yield lambda handler: servers.enter_context(serving(handler))


@pytest.fixture
def https_server(tmp_path):
    """`https_server(HandlerClass)` does it by https, and gives the port and the file of the certificate."""
    with ExitStack() as servers:
        yield lambda handler: servers.enter_context(serving_https(handler, tmp_path))
