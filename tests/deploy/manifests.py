"""The files of `deploy/`, read once: documents, the agent's containers, and what the rest of the
repository says about ports, flags, limits and metrics.
"""

import copy
import json
import re
import shlex
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
README = (ROOT / "README.md").read_text()
YAML_FILES = sorted(str(path.relative_to(DEPLOY)) for path in DEPLOY.rglob("*.yaml"))
# What is applied to the Deployment of sidecar.yaml.
PATCHES = ["batcher.yaml", "logger.yaml"]
# The image's name in the manifests; a container with it is an agent.
AGENT_IMAGE = re.compile(r"[\w./-]*/kserve-agent:(?P<tag>.+)")


class NoDuplicates(yaml.SafeLoader):
    """YAML as Kubernetes reads it: a key that is given twice is an error."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"given twice: {twice}", node.start_mark)
        return super().construct_mapping(node, deep)


def documents(name):
    with open(DEPLOY / name) as file:
        return list(yaml.load_all(file, NoDuplicates))


def document(name, kind):
    return next(found for found in documents(name) if found["kind"] == kind)


def dashboard():
    return json.loads((DEPLOY / "dashboard.json").read_text())


def merged(base, patch):
    """A strategic merge patch as kubectl does it for these files: objects are merged, lists of things that have names
    by name, other lists replaced."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return {key: merged(base.get(key), patch.get(key)) for key in {**base, **patch}}
    if patch is None:
        return copy.deepcopy(base)
    if isinstance(base, list) and all(isinstance(item, dict) and "name" in item for item in [*base, *patch]):
        added = {item["name"]: item for item in patch}
        known = [merged(item, added.pop(item["name"], None)) for item in base]
        return known + list(added.values())
    return patch


def deployments():
    """Every Deployment that the files describe, each patch applied."""
    sidecar = document("sidecar.yaml", "Deployment")
    return {
        "sidecar.yaml": sidecar,
        "native-sidecar.yaml": document("native-sidecar.yaml", "Deployment"),
        **{name: merged(sidecar, document(name, "Deployment")) for name in PATCHES},
    }


def pod_spec(deployment):
    return deployment["spec"]["template"]["spec"]


def containers(deployment):
    spec = pod_spec(deployment)
    return {found["name"]: found for found in [*spec.get("initContainers", []), *spec["containers"]]}


def agent(deployment):
    (found,) = [found for found in containers(deployment).values() if AGENT_IMAGE.fullmatch(found["image"])]
    return found


# The rest of the repository


def flag_defaults():
    """Flag -> default, from the README's table, which tests/architecture.rs holds against the program."""
    return dict(re.findall(r"^\| `--([a-z-]+)` \| ([^|]*) \|", README, re.MULTILINE))


def flags_of(container):
    """The values of the flags given, as text, over the defaults."""
    given = dict(re.match(r"--([a-z-]+)(?:=(.*))?$", argument).groups() for argument in container["args"])
    return {**{name: value.strip() for name, value in flag_defaults().items()}, **given}


def constant(name):
    """A limit of src/config: seconds, or a product of whole numbers."""
    text = "".join(path.read_text() for path in [ROOT / "src/config.rs", *(ROOT / "src/config").glob("*.rs")])
    value = re.search(rf"const {name}: \w+ = ([^;]+);", text).group(1)
    seconds = re.fullmatch(r"Duration::from_secs\((\d+)\)", value)
    if seconds:
        return int(seconds.group(1))
    product = 1
    for factor in value.split("*"):
        product *= int(factor)
    return product


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text).group(1))


def quantity(text):
    """A Kubernetes quantity as a number: bytes, or processors."""
    number, unit = re.fullmatch(r"(\d+)(m|Ki|Mi|Gi)?", text).groups()
    return int(number) * {"m": 0.001, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, None: 1}[unit]


def version():
    return re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE).group(1)


def metrics():
    """Family -> (type, words of the column of labels), from the README's table of metrics."""
    rows = re.findall(r"^\| `((?:kserve|process)_\w+)` \| (\w+) \|([^|]*)\|", README, re.MULTILINE)
    return {name: (kind, set(re.findall(r"\w+", labels))) for name, kind, labels in rows}


def commands(text):
    """The shell commands in the comments of a file, continued lines joined."""
    comments = "\n".join(re.findall(r"^ *# ?(.*)$", text, re.MULTILINE)).replace("\\\n", " ")
    return [shlex.split(line) for line in comments.splitlines() if re.match(r"\s+(kubectl|helm) ", line)]
