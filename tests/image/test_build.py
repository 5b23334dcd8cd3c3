"""How the image is built."""

import re

from builder import ROOT


def steps(log):
    """The build's instructions, each with the crates that were compiled in it."""
    instruction = None
    for line in log.splitlines():
        if match := re.match(r"(?:\[\d/\d\] )?STEP \d+/\d+: (.*)", line):
            instruction = match[1]
        elif match := re.match(r"\s*Compiling (\S+) v", line):
            yield instruction, match[1]


def test_dependencies_are_compiled_before_the_sources_are_there(build_log):
    compiled = list(steps(build_log))
    sources = [crate for instruction, crate in compiled if "find src" in instruction]
    dependencies = [crate for instruction, crate in compiled if "fn main() {}" in instruction]
    assert sources == ["kserve-agent"]
    assert {"rustls", "mio", "ureq"} <= set(dependencies)


def test_the_builder_sees_the_sources_and_nothing_else_of_the_checkout(builder):
    everything = builder.folder / "everything.Dockerfile"
    everything.write_text("FROM scratch\nCOPY . /\n")
    builder.run("buildah", "build", "--tag", "localhost/everything", "--file", everything, ROOT)
    entries = [entry for layer in builder.load("localhost/everything").layers() for entry in layer]
    outside = {entry.name for entry in entries if entry.isfile() and not entry.name.startswith("src/")}
    assert outside == {".ci/build", "Cargo.lock", "Cargo.toml"}


def test_the_bases_are_the_documented_ones_by_tag():
    arguments = dict(re.findall(r"^ARG (\w+_IMAGE)=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert arguments == {
        "BUILD_IMAGE": "docker.io/library/rust:1.95-bookworm",
        "RUNTIME_IMAGE": "gcr.io/distroless/static-debian12:nonroot",
    }
