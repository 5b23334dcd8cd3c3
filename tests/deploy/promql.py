"""Expressions of the files in `deploy/`, what they name, and Prometheus' own tool to read and run them."""

import re
import subprocess
from pathlib import Path

import manifests
import pytest
import yaml

METRIC = re.compile(r"\b((?:kserve|process)_\w+)\b(\{[^}]*\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|on|group_left|without|ignoring|group_right)\s*\(([^)]*)\)")
# What Prometheus adds to every series of a pod's target, by podmonitor.yaml, and to buckets.
TARGET_LABELS = {"namespace", "job", "pod", "instance", "le"}


def alerts():
    return [rule for group in rule_groups() for rule in group["rules"]]


def rule_groups():
    return manifests.document("alerts.yaml", "PrometheusRule")["spec"]["groups"]


def panels():
    return [panel for panel in manifests.dashboard()["panels"] if panel["type"] != "row"]


def expressions():
    """(where, expression) of everything that Prometheus is asked."""
    found = [(f"alert {rule['alert']}", rule["expr"]) for rule in alerts()]
    for panel in panels():
        found += [(f"panel {panel['title']}", substituted(target["expr"])) for target in panel["targets"]]
    for trigger in manifests.document("keda.yaml", "ScaledObject")["spec"]["triggers"]:
        found.append(("keda.yaml", trigger["metadata"]["query"]))
    service = manifests.document("kserve/inferenceservice.yaml", "InferenceService")
    for metric in service["spec"]["predictor"]["autoScaling"]["metrics"]:
        found.append(("kserve/inferenceservice.yaml", metric["external"]["metric"]["query"]))
    (values,) = manifests.documents("prometheus-adapter-values.yaml")
    for rule in values["rules"]["custom"]:
        series = rule["seriesQuery"].partition("{")[0]
        replaced = {"<<.Series>>": series, "<<.LabelMatchers>>": 'namespace="a",pod=~"b|c"', "<<.GroupBy>>": "pod"}
        query = rule["metricsQuery"]
        for name, value in replaced.items():
            query = query.replace(name, value)
        found += [("prometheus-adapter series", rule["seriesQuery"]), ("prometheus-adapter query", query)]
    return found


def substituted(expression):
    """What Grafana sends for "All" and five minutes."""
    return re.sub(r"\$(namespace|pod)\b", ".*", expression.replace("$__rate_interval", "5m").replace("$__range", "1h"))


def named(expression):
    """(metric, its matchers as (label, operator, value)) of the expression."""
    return [(name, MATCHER.findall(matchers or "")) for name, matchers in METRIC.findall(expression)]


def groupings(expression):
    """Labels that the expression groups or joins by."""
    return {label.strip() for labels in GROUPING.findall(expression) for label in labels.split(",")} - {""}


def promtool(*arguments, cwd: Path):
    try:
        done = subprocess.run(
            ["promtool", *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=50
        )
    except FileNotFoundError:
        pytest.fail("promtool is not installed; `make test-deploy` installs it where it may (package prometheus)")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_rules(path, groups):
    path.write_text(yaml.safe_dump({"groups": groups}))
