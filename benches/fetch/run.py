"""The puller's download beside other clients of the store: 1 GB in one file, and in a thousand.

    run.py --pull target/release/examples/pull --store target/stores/bin/versitygw [--aws target/aws-cli] --out target/bench

The store is one that is faster than its clients: versitygw with its files in memory. Models go to memory as well (`--to`
names another folder): a disk would be what is measured. Clients that are not installed are left out: curl, with as many
connections as the agent, and the aws command line with the ten that it takes. Rounds alternate between clients, in
another order each time; a row has the medians. The agent's files are synced when it ends, the others' are not.
"""

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import boto3
import botocore.config

AGENT = "kserve-agent"
BUCKET, KEY, SECRET = "bench", "bench", "a-secret-of-the-bench"
HEAD = (
    "| files | client | seconds | MB/s | CPU seconds | peak MiB | agent's throughput over its |\n"
    "|---|---|---|---|---|---|---|\n"
)
FOLDERS = {"one": 1, "many": 1000}
BYTES = 1000 * 1024 * 1024
# Seconds between two looks at a client: a hundredth of what the fastest takes.
LOOK = 0.01


def commands(options, endpoint):
    """By name: the command that brings a folder of the bucket to a place."""
    found = {AGENT: lambda folder, to: [options.pull, f"s3://{BUCKET}/{folder}", to]}
    if shutil.which("curl"):
        names = {"one": "model.bin", "many": "[0000-0999]"}
        found["curl -Z, 4 connections"] = lambda folder, to: [
            "curl", "--no-progress-meter", "--fail", "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD",
            "-Z", "--parallel-max", "4", "--create-dirs", "-u", f"{KEY}:{SECRET}", "--aws-sigv4", "aws:amz:us-east-1:s3",
            f"{endpoint}/{BUCKET}/{folder}/{names[folder]}", "-o", f"{to}/model.bin" if folder == "one" else f"{to}/#1",
        ]  # fmt: skip
    if options.aws:
        found["aws s3 cp"] = lambda folder, to: [
            options.aws, "--endpoint-url", endpoint, "s3", "cp", "--quiet", "--recursive",
            f"s3://{BUCKET}/{folder}", to,
        ]  # fmt: skip
    return found


@contextmanager
def store(options, folder):
    """The address of a store with the models in it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    (folder / "store").mkdir()
    command = [options.store, "--access", KEY, "--secret", SECRET, "--port", f"127.0.0.1:{port}", "posix", folder / "store"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            fill(endpoint)
            yield endpoint
        finally:
            process.terminate()


def fill(endpoint):
    config = botocore.config.Config(retries={"total_max_attempts": 20})
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=config)
    client.create_bucket(Bucket=BUCKET)
    content = os.urandom(BYTES)
    client.put_object(Bucket=BUCKET, Key="one/model.bin", Body=content)
    size = BYTES // FOLDERS["many"]
    for number in range(FOLDERS["many"]):
        piece = content[number * size : (number + 1) * size]
        client.put_object(Bucket=BUCKET, Key=f"many/{number:04}", Body=piece)


def resident(pid):
    """The most MiB that a process has had: not what `wait4` says, as a child's peak starts with its parent's."""
    with suppress(OSError), open(f"/proc/{pid}/status") as lines:
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0)
    return 0


def run(command, to):
    """Seconds, processor seconds, and the most memory in MiB."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    os.sync()
    start = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    peak = 0
    while True:
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        peak = max(peak, resident(process.pid))
        time.sleep(LOOK)
    seconds = time.monotonic() - start
    files = [path for path in to.rglob("*") if path.is_file()]
    came = sum(path.stat().st_size for path in files)
    if status or came != BYTES:
        sys.exit(f"{command[0]} ended with {status}, {came} bytes in {len(files)} files came")
    return seconds, usage.ru_utime + usage.ru_stime, peak


def measure(clients, folder, to, rounds):
    """By client: what `run` has given, of each round."""
    results = {name: [] for name in clients}
    order = list(clients)
    for number in range(rounds):
        for name in order:
            print(f"{FOLDERS[folder]} files, round {number + 1} of {rounds}: {name}", file=sys.stderr)
            results[name].append(run(clients[name](folder, str(to)), to))
        order.append(order.pop(0))
    return results


def rows(folder, results):
    for name, rounds in results.items():
        seconds, cpu, memory = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratios = sorted(other[0] / own[0] for other, own in zip(rounds, results[AGENT], strict=True))
        low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive")
        over = "" if name == AGENT else f"{ratio:.2f} ({low:.2f} to {high:.2f})"
        yield (
            f"| {FOLDERS[folder]} | {name} | {seconds:.2f} | {BYTES / seconds / 1e6:.0f} | {cpu:.2f} | {memory:.1f} | {over} |"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pull", required=True, help="the example's program")
    parser.add_argument("--store", required=True, help="versitygw")
    parser.add_argument("--aws", help="the aws command line's script")
    parser.add_argument("--to", type=Path, default=Path("/dev/shm"), help="where the models go")
    parser.add_argument("--out", type=Path, required=True, help="where pull.md goes")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="kserve-agent-bench-", dir="/dev/shm") as folder,
        tempfile.TemporaryDirectory(prefix="kserve-agent-bench-", dir=options.to) as to,
    ):
        os.environ.update(AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET, AWS_DEFAULT_REGION="us-east-1")
        with store(options, Path(folder)) as endpoint:
            os.environ["AWS_ENDPOINT_URL"] = endpoint
            clients = commands(options, endpoint)
            table = HEAD
            for name in FOLDERS:
                table += "".join(f"{row}\n" for row in rows(name, measure(clients, name, Path(to) / "model", options.rounds)))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "pull.md").write_text(table)
    print(table, end="")


if __name__ == "__main__":
    main()
