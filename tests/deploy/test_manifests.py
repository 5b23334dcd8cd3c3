"""The manifests: of the kinds they say, safe, and in step with the agent's ports, flags, limits and times."""

import json
import re

import manifests
import pytest
import schemas
from manifests import agent, containers, deployments, flags_of, pod_spec, quantity, seconds

# Clients and gateways learn within this time that a pod is to end.
PROPAGATION = 10
# What a server or an agent gets at least to end after it was told.
ENDING = 10
EACH = pytest.mark.parametrize("name", deployments())


@pytest.mark.parametrize("name", manifests.YAML_FILES)
def test_every_object_has_only_members_of_its_kind(name):
    if name == "prometheus-adapter-values.yaml":
        (values,) = manifests.documents(name)
        assert set(values) == {"rules"}
        return
    for found in manifests.documents(name):
        if name in manifests.PATCHES:
            found = manifests.merged(manifests.document("sidecar.yaml", "Deployment"), found)
        schemas.check(found)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["spec", "template", "spec", "containers", 0, "resources", "limit"], {}, "no such member"),
        (["spec", "replicas"], "2", "is not int"),
        (["spec", "selector"], None, "not an object"),
    ],
)
def test_the_check_finds_what_kubernetes_would_refuse(path, value, message):
    broken = manifests.document("sidecar.yaml", "Deployment")
    *parents, last = path
    target = broken
    for step in parents:
        target = target[step]
    target[last] = value
    with pytest.raises(AssertionError, match=message):
        schemas.check(broken)


def test_a_missing_member_is_found():
    broken = manifests.document("sidecar.yaml", "Deployment")
    del broken["spec"]["selector"]
    with pytest.raises(AssertionError, match="selector"):
        schemas.check(broken)


def test_every_file_is_in_the_readme_of_the_folder():
    readme = (manifests.DEPLOY / "README.md").read_text()
    for name in [*manifests.YAML_FILES, "dashboard.json"]:
        assert f"({name})" in readme, name


def test_every_command_names_a_file_that_exists():
    texts = [(manifests.DEPLOY / name).read_text() for name in manifests.YAML_FILES]
    found = [word for text in texts for command in manifests.commands(text) for word in command if "deploy/" in word]
    assert len(found) >= 8
    for word in found:
        assert (manifests.ROOT / word).is_file(), word


@EACH
def test_the_agent_has_no_rights(name):
    deployment = deployments()[name]
    assert agent(deployment)["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    spec = pod_spec(deployment)
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)


def test_the_agent_that_kserve_makes_has_no_rights():
    service = manifests.document("kserve/inferenceservice.yaml", "InferenceService")
    context = service["spec"]["predictor"]["model"]["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}


def test_the_user_is_the_images_own():
    assert "USER 65532:65532" in (manifests.ROOT / "Dockerfile").read_text()


def test_the_image_has_this_version():
    images = [agent(deployment)["image"] for deployment in deployments().values()]
    images.append(agent_entry()["image"])
    assert len(set(images)) == 1
    assert manifests.AGENT_IMAGE.fullmatch(images[0]).group("tag") == manifests.version()


@EACH
def test_every_flag_exists(name):
    for argument in agent(deployments()[name])["args"]:
        assert re.match(r"--([a-z-]+)", argument).group(1) in manifests.flag_defaults()


@pytest.mark.parametrize("name", [*manifests.YAML_FILES, "dashboard.json", "README.md"])
def test_every_flag_that_is_spoken_of_exists(name):
    text = (manifests.DEPLOY / name).read_text()
    of_tools = {word.partition("=")[0] for command in manifests.commands(text) for word in command}
    in_blocks = "\n".join(re.findall(r"```.*?```", text, re.DOTALL)) if name == "README.md" else ""
    server = {"--host"}
    for flag in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - of_tools - server:
        assert flag[2:] in manifests.flag_defaults() or flag in in_blocks, flag


@EACH
def test_ports_agree(name):
    deployment = deployments()[name]
    found = agent(deployment)
    flags = flags_of(found)
    ports = {port["name"]: port["containerPort"] for port in found["ports"]}
    assert ports == {"http": int(flags["port"]), "metrics": int(flags["metrics-port"])}
    server = containers(deployment)["model"]
    assert f"--port={flags['component-port']}" in server["args"]
    assert "ports" not in server, "the server is on the loopback"
    probe = json.loads(next(entry["value"] for entry in found["env"] if entry["name"] == "SERVING_READINESS_PROBE"))
    assert probe["httpGet"]["port"] == int(flags["component-port"])
    assert probe["httpGet"]["host"] == "127.0.0.1"
    service = manifests.document("sidecar.yaml", "Service")["spec"]
    assert [port["targetPort"] for port in service["ports"]] == ["http"]
    assert service["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


def test_the_monitors_find_the_metrics():
    ours, kserves = manifests.documents("podmonitor.yaml")
    labels = manifests.document("sidecar.yaml", "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert ours["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert ours["spec"]["jobLabel"] in labels
    assert [endpoint["port"] for endpoint in ours["spec"]["podMetricsEndpoints"]] == ["metrics"]
    (endpoint,) = kserves["spec"]["podMetricsEndpoints"]
    # The name and number that KServe's injector gives the agent's port.
    assert endpoint["port"] == "agent-port"
    port = manifests.flag_defaults()["metrics-port"].strip()
    address = endpoint["relabelings"][0]
    pattern, template = f"^(?:{address['regex']})$", address["replacement"].replace("$1", r"\1")
    assert re.sub(pattern, template, "10.1.2.3:9081") == f"10.1.2.3:{port}"
    assert re.sub(pattern, template, "[fd00::1]:9081") == f"[fd00::1]:{port}"
    text = (manifests.DEPLOY / "podmonitor.yaml").read_text()
    assert re.findall(r'/port: "(\d+)"', text) == [port, port]


@EACH
def test_the_readiness_probe_is_the_agents(name):
    probe = agent(deployments()[name])["readinessProbe"]
    assert probe["httpGet"]["httpHeaders"] == [{"name": "K-Network-Probe", "value": "queue"}]
    inner = json.loads(agent(deployments()[name])["env"][0]["value"])
    assert probe["timeoutSeconds"] > inner["timeoutSeconds"]
    # 0 means: retry for up to 10 s (SPEC H3), longer than the kubelet waits.
    assert inner["periodSeconds"] == probe["periodSeconds"]
    # The kubelet can't reach a server on the loopback, and must not restart the agent for the server's sake.
    assert "readinessProbe" not in containers(deployments()[name])["model"]
    assert "livenessProbe" not in agent(deployments()[name])
    assert "startupProbe" not in agent(deployments()[name])


def outlives(server, flags, spec):
    finish = manifests.constant("FINISH_TIMEOUT") + manifests.constant("LOG_FLUSH_TIMEOUT")
    drained = PROPAGATION + seconds(flags["drain-period"]) + finish
    server_told = server["lifecycle"]["preStop"]["sleep"]["seconds"]
    return server_told >= drained and spec["terminationGracePeriodSeconds"] >= server_told + ENDING


@pytest.mark.parametrize("name", ["sidecar.yaml", *manifests.PATCHES])
def test_the_server_outlives_the_agent_beside_it(name):
    deployment = deployments()[name]
    assert outlives(containers(deployment)["model"], flags_of(agent(deployment)), pod_spec(deployment))


def test_kserves_server_outlives_the_agent_beside_it():
    predictor = manifests.document("kserve/inferenceservice.yaml", "InferenceService")["spec"]["predictor"]
    assert outlives(predictor["model"], flags_of({"args": []}), predictor)


def test_a_native_sidecar_ends_after_the_server():
    deployment = deployments()["native-sidecar.yaml"]
    (found,) = pod_spec(deployment)["initContainers"]
    assert found["restartPolicy"] == "Always"
    # Nothing is left to forward to when it is told.
    assert seconds(flags_of(found)["drain-period"]) == 0
    server_told = containers(deployment)["model"]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert server_told >= PROPAGATION
    left = pod_spec(deployment)["terminationGracePeriodSeconds"] - server_told
    assert left >= ENDING + manifests.constant("FINISH_TIMEOUT")


def agent_entry():
    return json.loads(manifests.document("kserve/agent-config.yaml", "ConfigMap")["data"]["agent"])


def test_kserves_entry_has_the_members_that_its_injector_reads():
    assert list(agent_entry()) == ["image", "memoryRequest", "memoryLimit", "cpuRequest", "cpuLimit"]
    found = manifests.document("kserve/agent-config.yaml", "ConfigMap")
    assert found["metadata"] == {"name": "inferenceservice-config", "namespace": "kserve"}
    # A merge patch of this key alone leaves the other entries as they are.
    assert list(found["data"]) == ["agent"]


def test_the_batcher_has_memory_for_what_it_may_hold():
    held = manifests.constant("BATCH_BODY_BYTES")
    batching = agent(deployments()["batcher.yaml"])["resources"]
    plain = agent(deployments()["sidecar.yaml"])["resources"]
    assert quantity(batching["requests"]["memory"]) >= held + quantity(plain["requests"]["memory"])
    assert quantity(batching["limits"]["memory"]) >= 2 * held + quantity(plain["limits"]["memory"])
    assert quantity(agent_entry()["memoryLimit"]) == quantity(batching["limits"]["memory"])
    assert quantity(agent_entry()["memoryRequest"]) <= quantity(agent_entry()["memoryLimit"])
    for deployment in deployments().values():
        resources = agent(deployment)["resources"]
        assert quantity(resources["requests"]["memory"]) <= quantity(resources["limits"]["memory"])


def test_the_payload_log_has_memory_and_disk_for_what_it_may_hold():
    deployment = deployments()["logger.yaml"]
    logging, plain = agent(deployment), agent(deployments()["sidecar.yaml"])
    flags = flags_of(logging)
    events = int(flags["log-queue-bytes"])
    for kind, times in (("requests", 1), ("limits", 2)):
        room = quantity(logging["resources"][kind]["memory"]) - quantity(plain["resources"][kind]["memory"])
        assert room >= times * events, kind
    (mount,) = logging["volumeMounts"]
    (volume,) = pod_spec(deployment)["volumes"]
    assert (mount["mountPath"], mount["name"]) == (flags["log-spool-dir"], volume["name"])
    spool = int(flags["log-spool-bytes"])
    assert quantity(volume["emptyDir"]["sizeLimit"]) > spool + manifests.constant("LOG_CORRUPT_BYTES")


def test_autoscalers_scale_the_deployment():
    name = manifests.document("sidecar.yaml", "Deployment")["metadata"]["name"]
    assert manifests.document("hpa.yaml", "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == name
    scaled = manifests.document("keda.yaml", "ScaledObject")["spec"]
    assert scaled["scaleTargetRef"]["name"] == name
    (trigger,) = scaled["triggers"]
    (metric,) = manifests.document("hpa.yaml", "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["pods"]["target"]["averageValue"] == trigger["metadata"]["threshold"]
    (values,) = manifests.documents("prometheus-adapter-values.yaml")
    (rule,) = values["rules"]["custom"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    assert re.match(rule["name"]["matches"], rule["seriesQuery"].partition("{")[0])


def test_kserve_reads_the_target_as_it_is_given():
    service = manifests.document("kserve/inferenceservice.yaml", "InferenceService")["spec"]["predictor"]
    (metric,) = service["autoScaling"]["metrics"]
    # Its reconciler reads `value` whatever the type, and fails on a target without it.
    assert metric["external"]["target"]["type"] == "Value"
    assert int(metric["external"]["target"]["value"]) == 2 * service["batcher"]["maxBatchSize"]
