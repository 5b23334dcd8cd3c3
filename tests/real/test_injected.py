"""What KServe's own injector writes (SPEC F6): `injected.json` has 27 containers that it added to pods, each with its arguments,
environment (secrets as `x`) and probe. Each starts the agent, which gets ready and serves, whatever is wrong with the payload
log, its store or the puller: the sinks and stores of these rows are not there.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROWS = json.loads((HERE / "injected.json").read_text())
NAMESPACES = ["unshare", "--map-root-user", "--net", "--mount", "--"]


@pytest.fixture(scope="module")
def namespaces():
    if not shutil.which("unshare") or subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces can be made here")
    return NAMESPACES


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_every_container_of_the_injector_gets_ready_and_serves(row, namespaces):
    run = subprocess.run(
        [*namespaces, sys.executable, HERE / "injected_row.py"],
        input=json.dumps(row),
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    got = json.loads(run.stdout)
    assert (got["ready"], got["served"]) == (200, 200), got
    # A batch of one waits for `--max-latency` at most, and nothing was so wrong that it is told again and again.
    assert len(got["log"].splitlines()) < 100, got["log"]


def test_there_are_all_of_them():
    assert len(ROWS) == 27
