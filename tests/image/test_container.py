"""The image run by a container runtime, with the arguments that README.md and a pod's manifest give (SPEC I3)."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import support
from builder import NAME
from conftest import ANY_USER, NONROOT, process_status

LOCKED_DOWN = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none", "--ulimit=host")
SERVER = """
from http.server import *
HTTPServer(("127.0.0.1", {}), SimpleHTTPRequestHandler).handle_request()
"""
# 502 until the server is there.
CLIENT = """
import time, urllib.error, urllib.request
while True:
    try:
        print(urllib.request.urlopen("http://127.0.0.1:9081/").status)
        break
    except urllib.error.HTTPError:
        time.sleep(0.01)
"""


def ask_through(agent_pid, component_port, folder):
    """The status of a request to the agent on 9081, whose network has a server on `component_port` and nothing else."""
    inside = ["nsenter", f"--target={agent_pid}", "--net", sys.executable, "-c"]
    with subprocess.Popen([*inside, SERVER.format(component_port)], cwd=folder, stderr=subprocess.DEVNULL) as server:
        try:
            client = subprocess.run([*inside, CLIENT], capture_output=True, timeout=support.DEADLINE, check=True)
        finally:
            server.kill()
    return int(client.stdout)


@pytest.fixture(scope="session")
def runtime(builder, release):
    """`runtime(arguments…)` runs podman, and gives what it prints."""

    def run(*arguments):
        return builder.run("podman", *arguments).strip()

    # Where it can't run this, the machine is at fault and not the image.
    tree = builder.folder / "known-good"
    tree.mkdir()
    shutil.copy(release, tree / "program")
    try:
        run("run", "--rm", *LOCKED_DOWN, builder.base("known-good", tree, 'ENTRYPOINT ["/program"]'), "--version")
    except (OSError, RuntimeError) as error:
        pytest.skip(f"NOT TESTED: podman with runc can't run a container here: {str(error)[-300:]}")
    return run


@pytest.fixture
def podman(runtime, image):
    yield runtime
    runtime("rm", "--all", "--force")


@pytest.mark.parametrize("component_port", [8080, 8000], ids=["docker run", "sidecar manifest"])
def test_the_documented_arguments_work_as_written(contain, tree, tmp_path, component_port):
    agent = contain(tree, port=9081, component_port=component_port, network="own")
    assert ask_through(agent.pid, component_port, tmp_path) == 200


def test_the_ports_that_the_image_declares_are_those_that_others_can_reach(contain, tree, image):
    agent = contain(tree, port=9081, component_port=8080, network="own")
    tables = (Path(f"/proc/{agent.pid}/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6"))
    rows = [row.split() for table in tables for row in table]
    listening = [row[1].split(":") for row in rows if row[3] == "0A"]
    reachable = {int(port, 16) for address, port in listening if address != "0100007F"}
    assert {f"{port}/tcp" for port in reachable} == set(image.config["ExposedPorts"])


@pytest.mark.parametrize("user", [NONROOT, ANY_USER])
def test_a_container_that_may_do_nothing_serves_and_drains(podman, tmp_path, user):
    as_user = () if user == NONROOT else (f"--user={user}",)
    flags = ("--port=9081", "--component-port=8080", "--drain-period=0s")
    container = podman("run", "--detach", *LOCKED_DOWN, *as_user, NAME, *flags)
    pid = int(podman("inspect", "--format={{.State.Pid}}", container))
    support.wait_until(lambda: "serving on port 9081" in podman("logs", container), "start of the container")

    assert ask_through(pid, 8080, tmp_path) == 200
    facts = process_status(pid)
    assert facts["Uid"].split() == [str(user)] * 4
    assert int(facts["CapBnd"], 16) == 0
    assert facts["Seccomp"] == "2", "without the runtime's filter"

    podman("stop", "--time=20", container)
    assert podman("inspect", "--format={{.State.ExitCode}} {{.State.OOMKilled}}", container) == "0 false"


def test_there_is_no_shell_to_enter_it_with(podman):
    with pytest.raises(RuntimeError, match="no such file"):
        podman("run", "--rm", *LOCKED_DOWN, "--entrypoint=/bin/sh", NAME)


def test_the_documented_way_to_verify_an_image_gives_the_releases_checksum(podman, builder, release):
    script = f'podman cp "$(podman create {NAME})":/kserve-agent - | tar -xO | sha256sum'
    assert builder.run("sh", "-c", script).split()[0] == hashlib.sha256(release.read_bytes()).hexdigest()
