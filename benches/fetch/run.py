"""The puller's download beside other clients of the store: 1 GB in one file, and in a thousand.

    run.py --fetch target/release/examples/fetch --endpoint http://127.0.0.1:17171 --bucket bench --to /dev/shm/out

The store is one that is faster than its clients, as versitygw (a Go module) on a tmpfs; its keys come from
`AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`. `--fill` stores the objects first. Clients that are not installed are left
out: curl, with as many connections as the agent, and the aws command line (`awscli` from PyPI), with the ten that it
takes. Rounds alternate between clients; a row has the medians. The agent's files are synced when it ends, the others'
are not.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

FOLDERS = {"one": 1, "many": 1000}
BYTES = 1000 * 1024 * 1024

def commands(options):
    """By name: the command that brings a folder of the bucket to a place."""
    endpoint, bucket = options.endpoint, options.bucket
    found = {"agent": lambda folder, to: [options.fetch, f"s3://{bucket}/{folder}", to]}
    if shutil.which("curl"):
        keys = f"{os.environ['AWS_ACCESS_KEY_ID']}:{os.environ['AWS_SECRET_ACCESS_KEY']}"
        names = {"one": "model.bin", "many": "[0000-0999]"}
        found["curl -Z 4"] = lambda folder, to: [
            "curl", "--no-progress-meter", "--fail", "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD", "-Z", "--parallel-max", "4", "--create-dirs", "-u", keys,
            "--aws-sigv4", "aws:amz:us-east-1:s3", f"{endpoint}/{bucket}/{folder}/{names[folder]}",
            "-o", f"{to}/model.bin" if folder == "one" else f"{to}/#1",
        ]  # fmt: skip
    aws = Path(sys.executable).with_name("aws")
    if aws.exists():
        found["aws s3 cp"] = lambda folder, to: [
            sys.executable, aws, "--endpoint-url", endpoint, "s3", "cp", "--quiet", "--recursive",
            f"s3://{bucket}/{folder}", to,
        ]  # fmt: skip
    return found


def fill(options):
    import boto3

    client = boto3.client("s3", endpoint_url=options.endpoint, region_name="us-east-1")
    client.create_bucket(Bucket=options.bucket)
    content = os.urandom(BYTES)
    client.put_object(Bucket=options.bucket, Key="one/model.bin", Body=content)
    size = BYTES // FOLDERS["many"]
    for number in range(FOLDERS["many"]):
        client.put_object(
            Bucket=options.bucket, Key=f"many/{number:04}", Body=content[number * size : (number + 1) * size]
        )


def run(command, to):
    """Seconds, processor seconds, and the most memory in MiB."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    os.sync()
    start = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - start
    files = [path for path in to.rglob("*") if path.is_file()]
    came = sum(path.stat().st_size for path in files)
    if status or came != BYTES:
        sys.exit(f"{command[0]} ended with {status}, {came} bytes in {len(files)} files came")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fetch", required=True, help="the example's program")
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--bucket", default="bench")
    parser.add_argument("--to", type=Path, required=True, help="a folder that may be removed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fill", action="store_true")
    parser.add_argument("--only", nargs="*", help="these clients")
    options = parser.parse_args()
    os.environ.update(AWS_ENDPOINT_URL=options.endpoint, AWS_DEFAULT_REGION="us-east-1")
    if options.fill:
        fill(options)
    clients = {name: of for name, of in commands(options).items() if not options.only or name in options.only}
    print("| files | client | seconds | MB/s | CPU seconds | peak MiB | agent's throughput is |\n|---|---|---|---|---|---|---|")
    for folder, count in FOLDERS.items():
        results = {name: [] for name in clients}
        for _ in range(options.rounds):
            for name, of in clients.items():
                results[name].append(run(of(folder, str(options.to)), options.to))
        agent = statistics.median(seconds for seconds, _, _ in results["agent"])
        for name, rounds in results.items():
            seconds, cpu, memory = (statistics.median(column) for column in zip(*rounds, strict=True))
            print(
                f"| {count} | {name} | {seconds:.2f} | {BYTES / seconds / 1e6:.0f} | {cpu:.2f} | {memory:.1f} | "
                f"{seconds / agent:.2f} x |",
                flush=True,
            )
    shutil.rmtree(options.to)


if __name__ == "__main__":
    main()
