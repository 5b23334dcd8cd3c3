"""Alerts, dashboard and autoscalers: what Prometheus' own parser takes, over metrics and labels that exist."""

import re

import manifests
import pytest
import promql

SUFFIXES = ("_bucket", "_sum", "_count")
SEVERITIES = {"critical", "warning", "info"}


def test_the_readme_has_the_metrics():
    assert len(manifests.metrics()) > 30


def test_prometheus_parses_every_expression(tmp_path):
    recorded = [
        {"record": f"parsed:number:{number}", "expr": expression}
        for number, (_, expression) in enumerate(promql.expressions())
    ]
    assert len(recorded) > 50
    promql.write_rules(tmp_path / "rules.yaml", [{"name": "all", "rules": recorded}])
    promql.promtool("check", "rules", "rules.yaml", cwd=tmp_path)


def test_prometheus_takes_the_alerts_and_their_templates(tmp_path):
    promql.write_rules(tmp_path / "rules.yaml", promql.rule_groups())
    promql.promtool("check", "rules", "rules.yaml", cwd=tmp_path)


def family(name):
    """The family of a series: histograms have three, and only by these names."""
    families = manifests.metrics()
    if name in families:
        assert families[name][0] != "histogram", f"{name} is a histogram"
        return name
    base = next((name.removesuffix(end) for end in SUFFIXES if name.endswith(end)), name)
    assert base in families, f"{name} is not in the README's table"
    assert families[base][0] == "histogram", f"{base} is no histogram"
    return base


@pytest.mark.parametrize(("where", "expression"), promql.expressions())
def test_every_metric_label_and_value_exists(where, expression):
    found = promql.named(expression)
    assert found, where
    known = set(promql.TARGET_LABELS)
    for name, matchers in found:
        words = manifests.metrics()[family(name)][1]
        known |= words
        for label, _, value in matchers:
            if label in promql.TARGET_LABELS:
                continue
            assert label in words, f"{name} has no label {label}"
            assert set(value.split("|")) <= words, f"{label} of {name} is never one of {value}"
    assert promql.groupings(expression) <= known


@pytest.mark.parametrize(("where", "expression"), promql.expressions())
def test_counters_are_read_as_rates_and_gauges_are_not(where, expression):
    for match in promql.METRIC.finditer(expression):
        kind = manifests.metrics()[family(match.group(1))][0]
        rated = re.search(r"\b(rate|increase)\($", expression[: match.start()]) is not None
        assert rated == (kind in ("counter", "histogram")), f"{where}: {match.group(1)} is a {kind}"


def test_every_rate_of_a_metric_of_all_programs_is_the_agents_own():
    for where, expression in promql.expressions():
        if "process_" in expression:
            assert "kserve_agent_build_info" in expression, where


@pytest.mark.parametrize("rule", promql.alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do(rule):
    assert rule["alert"].startswith("KserveAgent")
    assert rule["labels"]["severity"] in SEVERITIES
    assert set(rule["annotations"]) == {"summary", "description"}
    assert "$labels.namespace" in rule["annotations"]["summary"]
    assert len(rule["annotations"]["description"]) > 100
    # An alert that does not wait is about something that must never happen.
    assert "for" in rule or rule["alert"] in {"KserveAgentPanics", "KserveAgentLogCorrupt"}


def test_each_alert_fires_on_bad_series_and_is_quiet_on_good_ones(tmp_path):
    promql.write_rules(tmp_path / "rules.yaml", promql.rule_groups())
    cases = (manifests.ROOT / "tests/deploy/alerts.test.yaml").read_text()
    (tmp_path / "alerts.test.yaml").write_text(cases)
    promql.promtool("test", "rules", "alerts.test.yaml", cwd=tmp_path)


def test_each_alert_has_a_case_of_both_kinds():
    cases = (manifests.ROOT / "tests/deploy/alerts.test.yaml").read_text()
    for rule in promql.alerts():
        case = rf"expr: ALERTS\{{alertname=\"{rule['alert']}\".*\n.*\n +exp_samples:"
        assert re.search(case + r"\n", cases), f"{rule['alert']} never fires"
        assert re.search(case + r" \[\]", cases), f"{rule['alert']} is never quiet"


def test_autoscalers_count_tunnels_as_well_as_requests():
    scaling = [(where, expression) for where, expression in promql.expressions() if "yaml" in where or "query" in where]
    assert len(scaling) == 3
    for where, expression in scaling:
        names = [name for name, _ in promql.named(expression)]
        assert names == ["kserve_agent_requests_in_flight", "kserve_agent_tunnels"], where


# The dashboard


def test_panels_are_complete_and_do_not_overlap():
    board = manifests.dashboard()
    assert board["schemaVersion"] >= 39
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in promql.panels():
        assert panel["description"] and panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_variables_select_what_is_shown():
    variables = {variable["name"]: variable for variable in manifests.dashboard()["templating"]["list"]}
    assert list(variables) == ["datasource", "namespace", "pod"]
    for panel in promql.panels():
        for target in panel["targets"]:
            for name, matchers in promql.METRIC.findall(target["expr"]):
                assert 'namespace=~"$namespace", pod=~"$pod"' in matchers, f"{panel['title']}: {name}"


def test_the_dashboard_shows_every_metric_of_ours_or_says_why_not():
    # Probes and descriptors have alerts; the rest of process_* is for other questions.
    elsewhere = {"kserve_agent_probes_total"}
    shown = {family(name) for panel in promql.panels() for t in panel["targets"] for name, _ in promql.named(t["expr"])}
    ours = {name for name in manifests.metrics() if name.startswith("kserve_")}
    assert ours - elsewhere <= shown
