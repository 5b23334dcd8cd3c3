"""The program `examples/pull.rs`, which `PULL_EXAMPLE` names (`make test-puller` sets it), and a folder to pull into.

The folder `models` lies alone in its own, so that whatever is written outside of it is seen.
"""

import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "real"))

from support import serving, wait_until  # noqa: E402


# Bytes of memory that a program may have, its threads' stacks and all; more is a crash.
MEMORY = 64 * 1024 * 1024


def pytest_configure():
    path = os.environ.get("PULL_EXAMPLE")
    if not path or not os.access(path, os.X_OK):
        raise pytest.UsageError(f"PULL_EXAMPLE={path} is not a program that can be run; `make test-puller` sets it")


@dataclass
class Outcome:
    code: int
    output: str
    errors: str


def limit(most_file_bytes):
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_file_bytes, most_file_bytes))
    # Whoever writes more is to be told, not killed.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


class Puller:
    def __init__(self, root):
        self.root = root
        self.folder = root / "models"
        self.folder.mkdir()

    def start(self, uri, most_file_bytes=resource.RLIM_INFINITY, **env):
        return subprocess.Popen(
            [os.environ["PULL_EXAMPLE"], uri, str(self.folder)],
            env={"PATH": os.environ["PATH"], "MODEL_SOURCE_DIR": tempfile.gettempdir(), **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Not what it says that it has used: a child's peak starts with its parent's.
            preexec_fn=lambda: limit(most_file_bytes),
        )

    def run(self, uri, **env):
        program = self.start(uri, **env)
        output, errors = program.communicate(timeout=55)
        assert os.listdir(self.root) == ["models"], "something was written outside of the folder"
        return Outcome(program.returncode, output.decode(), errors.decode())

    def ok(self, uri, **env):
        outcome = self.run(uri, **env)
        assert outcome.code == 0, outcome.errors
        assert not self.own(), "files of the agent's own are left"
        return outcome

    def refused(self, uri, **env):
        """The reason why it was refused, of which nothing is left."""
        outcome = self.run(uri, **env)
        assert outcome.code == 1 and outcome.errors.startswith("refused: "), outcome
        assert self.files() == {}
        return outcome.errors.removeprefix("refused: ").removesuffix("\n")

    def until_ok(self, uri, attempts=200, **env):
        """Attempts that broke, until one did not."""
        for attempt in range(attempts):
            outcome = self.run(uri, **env)
            if outcome.code == 0:
                assert not self.own()
                return attempt
            assert outcome.errors.startswith(("transient: ", "changed: ")), outcome
        pytest.fail(f"not there after {attempts} attempts: {outcome}")

    def own(self):
        return [name for name in os.listdir(self.folder) if name.startswith(".kserve-agent-")]

    def files(self):
        """Contents of the model's files by their paths; of links what they lead to."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.is_symlink():
                found[name] = "-> " + os.readlink(path)
            elif path.is_file() and not name.startswith(".kserve-agent-"):
                found[name] = path.read_bytes()
        return found

    def mode(self, path):
        return oct(stat.S_IMODE((self.folder / path).stat().st_mode))

    def wait_for_size(self, name, size):
        """The size of a file that has at least so many bytes by now."""
        path = self.folder / name
        wait_until(lambda: path.exists() and path.stat().st_size >= size, f"{size} bytes in {name}", 20)
        return path.stat().st_size


@pytest.fixture
def puller():
    with tempfile.TemporaryDirectory() as root:
        yield Puller(Path(root))


@pytest.fixture
def http_server():
    """`http_server(HandlerClass)` serves it, one thread per connection, and gives the port."""
    with ExitStack() as servers:
        yield lambda handler: servers.enter_context(serving(handler))
