"""The image, built once for all tests, and the agent run from it as a container would run it.

`KSERVE_AGENT` names the binary of `make release`, `SBOM` its list of parts; `make image-test` sets both.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from builder import Builder
from names import NameServer

HERE = Path(__file__).parent
# A random user, as OpenShift gives one to each namespace.
ANY_USER = 1_000_730_000
NONROOT = 65532


def _load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


# How processes are started and waited for, and servers and requests, is as in the tests with real parts.
sys.path.append(str(HERE.parent / "real"))
real = _load("real", HERE.parent / "real" / "conftest.py")
agents, support = sys.modules["agents"], sys.modules["support"]
http_server = real.http_server


def pytest_configure():
    for name in ("KSERVE_AGENT", "SBOM"):
        if not Path(os.environ.get(name, "")).is_file():
            raise pytest.UsageError(f"{name} names no file; `make image-test` sets it")


@pytest.fixture(scope="session")
def release():
    """The binary that `make release` built."""
    return Path(os.environ["KSERVE_AGENT"])


@pytest.fixture(scope="session")
def builder():
    if os.geteuid() != 0:
        pytest.skip("the image is built and run in namespaces of its own, which only root may make here")
    if not shutil.which("buildah"):
        pytest.skip("buildah is not installed")
    if subprocess.run(["unshare", "--mount", "--pid", "--net", "--fork", "true"], check=False).returncode:
        pytest.skip("this machine does not let root make namespaces")
    folder = Path(tempfile.mkdtemp(prefix="kserve-agent-image-"))
    yield Builder(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def built(builder):
    """What the build printed, the base image, the image."""
    return builder.image()


@pytest.fixture(scope="session")
def build_log(built):
    return built[0]


@pytest.fixture(scope="session")
def base(built):
    return built[1]


@pytest.fixture(scope="session")
def image(built):
    return built[2]


@pytest.fixture(scope="session")
def tree(image, builder):
    """The image's root folder."""
    return image.unpack(builder.folder / "tree")


@pytest.fixture
def empty_tree(tree, tmp_path):
    """A root folder with the binary and nothing else."""
    folder = tmp_path / "empty"
    folder.mkdir()
    shutil.copy2(tree / "kserve-agent", folder)
    return folder


def process_status(pid):
    """What the kernel says of a process, by name."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


class Contained(agents.Agent):
    """The agent as process 1 of a container."""

    def __init__(self, tree, arguments, *, port, uid=NONROOT, network="host", env=None):
        self.port = port
        unshare = ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child"]
        if network == "own":
            unshare.append("--net")
        support.Process.__init__(
            self,
            [*unshare, sys.executable, HERE / "jail.py", tree, uid, network, "/kserve-agent", *arguments],
            {"SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt", **(env or {}), "PATH": os.environ["PATH"]},
        )
        self._unshare = self.pid
        self.await_start(self._child, "child")
        self.pid = self._child()
        self.await_start(lambda: "serving on port" in self.output(), "start")

    def _child(self):
        children = Path(f"/proc/{self._unshare}/task/{self._unshare}/children").read_text().split()
        return int(children[0]) if children else None

    def signal(self, number):
        os.kill(self.pid, number)


@pytest.fixture
def contain(tmp_path):
    """`contain(tree, *flags, component_port=…, uid=…, network=…, env=…, etc={name: text})` runs the agent."""
    started = []

    def start(tree, *flags, component_port, etc=None, port=None, **options):
        if etc:  # What Kubernetes mounts there.
            own = tmp_path / f"tree-{len(started)}"
            subprocess.run(["cp", "--archive", tree, own], check=True)
            for name, text in etc.items():
                (own / "etc").mkdir(exist_ok=True)
                (own / "etc" / name).write_text(text)
            tree = own
        port = port or support.reserve_port()
        arguments = [f"--port={port}", f"--component-port={component_port}", *flags]
        started.append(Contained(tree, arguments, port=port, **options))
        return started[-1]

    yield start
    for one in started:
        if one.running():
            one.signal(signal.SIGKILL)
        one.wait(agents.STOP_DEADLINE)
        print(one.output())  # Shown by pytest when the test has failed.


@pytest.fixture
def name_server():
    servers = []

    def start(names):
        servers.append(NameServer(names))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
