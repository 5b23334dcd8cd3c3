"""The list of what is in the binary (`make sbom`)."""

import hashlib
import json
import os
import re
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator


@pytest.fixture(scope="session")
def text():
    return Path(os.environ["SBOM"]).read_text()


@pytest.fixture(scope="session")
def parts(text):
    """The components by name and version."""
    return {(one["name"], one["version"]): one for one in json.loads(text)["components"]}


def test_it_is_valid_cyclonedx(text):
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_it_is_of_this_binary(text, release):
    subject = json.loads(text)["metadata"]["component"]
    assert subject["name"] == "kserve-agent"
    assert subject["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(release.read_bytes()).hexdigest()}]


def test_every_crate_that_the_binary_names_is_listed(parts, release):
    """Most crates leave their path in the message of some panic, in the form that .ci/build gives it."""
    named = set(re.findall(rb"/crates/([a-zA-Z0-9_-]+?)-(\d[\w.+-]*)/", release.read_bytes()))
    assert len(named) > 10
    assert {(name.decode(), version.decode()) for name, version in named} <= set(parts)


def test_what_only_builds_or_tests_is_not_listed(parts):
    names = {name for name, _ in parts}
    assert not names & {"cc", "syn", "quote", "serde_derive", "argh_derive", "stats_alloc"}


def test_what_a_static_binary_holds_beside_crates_is_listed(parts):
    assert {"rust-std", "glibc", "libgcc_eh"} <= {name for name, _ in parts}


def test_every_part_has_a_licence_and_every_crate_its_checksum(parts):
    for one in parts.values():
        assert one["licenses"], one["name"]
        assert one.get("hashes") or not one["purl"].startswith("pkg:cargo/"), one["name"]


def test_everything_is_reached_from_the_agent(text, parts):
    bom = json.loads(text)
    edges = {one["ref"]: one.get("dependsOn", []) for one in bom["dependencies"]}
    reached, ahead = set(), [bom["metadata"]["component"]["bom-ref"]]
    while ahead:
        if (one := ahead.pop()) not in reached:
            reached.add(one)
            ahead += edges[one]
    assert {one["bom-ref"] for one in parts.values()} < reached
