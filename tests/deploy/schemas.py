"""Strict checks of objects: unknown members, wrong types and missing ones are errors.

Kubernetes' and KServe's kinds are checked against the models of their Python clients, which are generated from the
servers' own OpenAPI description. The three kinds of other operators have no such package; the members that the files
use are listed here, from the operators' CRDs.
"""

import re

import kserve
from kubernetes.client import models

STRING_MAP = {"*": str}

KINDS = {
    ("v1", "Service"): "V1Service",
    ("v1", "ConfigMap"): "V1ConfigMap",
    ("apps/v1", "Deployment"): "V1Deployment",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "V2HorizontalPodAutoscaler",
    ("serving.kserve.io/v1beta1", "InferenceService"): "V1beta1InferenceService",
}
RELABELING = {"sourceLabels": [str], "regex": str, "replacement": str, "targetLabel": str, "action": str}
# A member whose name ends in "!" must be there; text is a class of the clients.
CUSTOM_KINDS = {
    ("monitoring.coreos.com/v1", "PodMonitor"): {
        "namespaceSelector": {"any": bool, "matchNames": [str]},
        "selector!": "V1LabelSelector",
        "jobLabel": str,
        "podTargetLabels": [str],
        "podMetricsEndpoints!": [{"port": str, "path": str, "interval": str, "relabelings": [RELABELING]}],
    },
    ("monitoring.coreos.com/v1", "PrometheusRule"): {
        "groups!": [
            {
                "name!": str,
                "interval": str,
                "rules!": [
                    {"alert!": str, "expr!": str, "for": str, "labels!": STRING_MAP, "annotations!": STRING_MAP}
                ],
            }
        ]
    },
    ("keda.sh/v1alpha1", "ScaledObject"): {
        "scaleTargetRef!": {"apiVersion": str, "kind": str, "name!": str},
        "minReplicaCount": int,
        "maxReplicaCount": int,
        "pollingInterval": int,
        "cooldownPeriod": int,
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": "V2HorizontalPodAutoscalerBehavior"}},
        "fallback": {"failureThreshold!": int, "replicas!": int},
        "triggers!": [{"type!": str, "metricType": str, "metadata!": STRING_MAP}],
    },
}


def check(found):
    """Fails with the path of the first member that the object's kind does not have."""
    kind = (found.get("apiVersion"), found.get("kind"))
    if kind in KINDS:
        check_model(found, KINDS[kind], kind[1])
    else:
        shape = {"apiVersion!": str, "kind!": str, "metadata!": "V1ObjectMeta", "spec!": CUSTOM_KINDS[kind]}
        check_shape(found, shape, kind[1])


def check_shape(value, shape, path):
    if isinstance(shape, str):
        check_model(value, shape, path)
    elif isinstance(shape, list):
        assert isinstance(value, list), f"{path}: not a list"
        for number, item in enumerate(value):
            check_shape(item, shape[0], f"{path}[{number}]")
    elif isinstance(shape, dict):
        assert isinstance(value, dict), f"{path}: not an object"
        members = {name.rstrip("!"): member for name, member in shape.items()}
        missing = {name.rstrip("!") for name in shape if name.endswith("!")} - set(value)
        assert not missing, f"{path}: without {missing}"
        for name, member in value.items():
            assert name in members or "*" in members, f"{path}.{name}: no such member"
            check_shape(member, members.get(name, members.get("*")), f"{path}.{name}")
    else:
        assert type(value) is shape, f"{path}: {value!r} is not {shape.__name__}"


def check_model(value, name, path):
    """The value as an object of the client's class `name`, which itself refuses what lacks a required member."""
    collection = re.fullmatch(r"[Ll]ist\[(.+)\]", name)
    mapping = re.fullmatch(r"[Dd]ict[\[(]str, (.+)[\])]", name)
    if collection:
        assert isinstance(value, list), f"{path}: not a list"
        return [check_model(item, collection.group(1), f"{path}[{n}]") for n, item in enumerate(value)]
    if mapping:
        assert isinstance(value, dict), f"{path}: not an object"
        return {key: check_model(item, mapping.group(1), f"{path}.{key}") for key, item in value.items()}
    # An "object" is a number or text, such as a port.
    plain = {"str": str, "int": int, "bool": bool, "object": (int, str), "V1beta1MetricQuantity": str}.get(name)
    if plain:
        known = plain if isinstance(plain, tuple) else (plain,)
        assert type(value) in known, f"{path}: {value!r} is not {name}"
        return value
    model = getattr(models, name, None) or getattr(kserve, name)
    assert isinstance(value, dict), f"{path}: not an object"
    attributes = {json: attribute for attribute, json in model.attribute_map.items()}
    members = {}
    for key, member in value.items():
        assert key in attributes, f"{path}.{key}: no such member of {name}"
        attribute = attributes[key]
        members[attribute] = check_model(member, model.openapi_types[attribute], f"{path}.{key}")
    try:
        return model(**members)
    except ValueError as error:
        raise AssertionError(f"{path}: {error}") from error
