"""The agent with the arguments, the environment and the probe that the manifests in `deploy/` give it."""

import sys

import pytest
from conftest import HERE, exchange
from support import Handler, wait_until

sys.path.insert(0, str(HERE.parent / "deploy"))
import manifests  # noqa: E402

READINESS_PATH = "/v2/health/ready"


@pytest.mark.parametrize("name", manifests.deployments())
def test_the_kubelets_probe_sees_the_server(name, agent, http_server):
    class Server(Handler):
        ready = False

        def do_GET(self):
            assert self.path == READINESS_PATH
            self.answer(200 if Server.ready else 503, b"")

    port = http_server(Server)
    container = manifests.agent(manifests.deployments()[name])
    own = ("--port=", "--component-port=")
    flags = [argument for argument in container["args"] if not argument.startswith(own)]
    (probe,) = [entry["value"] for entry in container["env"] if entry["name"] == "SERVING_READINESS_PROBE"]
    # The port of the manifest's server is not free here.
    proxy = agent(port, *flags, env={"SERVING_READINESS_PROBE": probe.replace("8000", str(port))})
    readiness = container["readinessProbe"]
    headers = {header["name"]: header["value"] for header in readiness["httpGet"]["httpHeaders"]}

    def status():
        """As the kubelet asks, and no longer than it waits."""
        headers["User-Agent"] = "kube-probe/1.33"
        path = readiness["httpGet"]["path"]
        return exchange(proxy.port, "GET", path, headers=headers, timeout=readiness["timeoutSeconds"]).status

    assert status() == 503
    Server.ready = True
    wait_until(lambda: status() == 200, "readiness", 5)
