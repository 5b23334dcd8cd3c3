#!/usr/bin/env python3
"""Measure the request batcher in front of servers that cost what a benchmark asks for and in front of a real one.

usage: batcher.py AGENT MODEL_SERVER [--seconds S] [--rounds N] [--only a,b,c,lone,idle,iris,sweep] [--plot PATH]

wrk (one thread, one flower per request) makes the load on the loopback; where a row says so it posts full batches to
the server itself, and its requests/s are instances. Rounds alternate between the cells that are compared, each with a
server of its own, and the median counts. CPU per request is the agent's user and system time (/proc/PID/stat) over the
requests that wrk counted; instances per call are those requests over the server's own count of calls. "Recorded" are
figures of another day on the same work, not measured here. Needs wrk (Debian package), and for iris and sweep the
environment that `make bench-batcher` makes.
"""
import argparse, contextlib, functools, json, os, pathlib, re, statistics, sys, tempfile, time, urllib.request

sys.dont_write_bytecode = True
from common import Peer, free_port, require, thousands
from plot import batching_plot

ROOT = pathlib.Path(__file__).parent.parent
PREDICT = "/v1/models/iris:predict"
CAP = 32
CLIENTS = (1, 32, 128, 512)
COST = ("--cost-ms=5", "--cost-per-instance-ms=0.1")
SERVERS = {
    "a": ("A server that is free", ()),
    "b": ("One call at a time, 5 ms and 0.1 ms per instance", (*COST, "--serial")),
    "c": ("The same cost, calls in parallel", COST),
}


def policies(window):
    """The agent's flags by the name of the row; `window` in milliseconds."""
    on = ("--enable-batcher", f"--max-batchsize={CAP}")
    return {
        "no batcher": (),
        f"window, {window} ms": (*on, "--batch-policy=window", f"--max-latency={window}"),
        "eager": (*on, "--batch-policy=eager", "--max-latency=1000"),
        "adaptive": (*on, "--batch-policy=adaptive", "--max-latency=1000"),
    }


# Figures of issue 4, recorded on a machine with two processors: (section, clients) -> figures. Batches of 32; a window
# of 10 ms, before iris of 20 ms.
RECORDED = {
    "Go agent, recorded": {
        ("a", 1): {"p50": 11_800},
        ("a", 128): {"rate": 27_000, "cpu": 46},
        ("b", 128): {"ideal": 0.83},
        ("c", 128): {"rate": 3_045},
        ("iris", 8): {"rate": 340},
        ("iris", 32): {"rate": 12_321},
        ("iris", 64): {"rate": 15_428},
    },
    "no batcher, recorded": {
        ("c", 128): {"rate": 18_000},
        ("iris", 8): {"rate": 1_536},
        ("iris", 32): {"rate": 1_317},
        ("iris", 64): {"rate": 1_443},
    },
}
COLUMNS = {
    "rate": ("requests/s", thousands),
    "cpu": ("CPU µs/request", lambda value: f"{value:.1f}"),
    "p50": ("p50 ms", lambda value: f"{value / 1e3:.2f}"),
    "p99": ("p99 ms", lambda value: f"{value / 1e3:.2f}"),
    "per_call": ("instances/call", lambda value: f"{value:.1f}"),
    "errors": ("errors", thousands),
    "ideal": ("of the ideal", lambda value: f"{value:.1%}"),
}


class Bench:
    """Starts servers and agents, and stops them in the reverse order."""

    def __init__(self, args, stack):
        self.args, self.stack = args, stack
        self.folder = stack.enter_context(tempfile.TemporaryDirectory())

    def start(self, name, port, command, seconds=10):
        peer = Peer(name, port, command, self.folder, seconds)
        self.stack.callback(peer.stop)
        return peer

    def server(self, flags):
        port = free_port()
        return self.start("server", port, [self.args.model_server, f"--port={port}", *flags])

    def iris(self):
        """The KServe SDK's server; its import takes seconds."""
        port = free_port()
        script = ROOT / "tests/real/iris_server.py"
        command = [self.args.python, str(script), f"--http_port={port}", "--enable_grpc=false"]
        server = self.start("KServe SDK", port, command, 60)
        predict(port)  # Imports what the first request needs.
        return server

    def agent(self, name, server, flags):
        port = free_port()
        command = [self.args.agent, f"--port={port}", f"--component-port={server.port}", "--metrics-port=0"]
        command += ["--admin-port=0", f"--threads={self.args.threads}", *flags]
        return self.start(name, port, command)


class Cell:
    """A row of a table: where the load goes, and the server whose calls are counted. `connections` stays the same for
    any number of clients, if it is given."""

    def __init__(self, peer, server, calls, instances=1, connections=None):
        self.peer, self.name, self.instances, self.connections = peer, peer.name, instances, connections
        self._calls = functools.partial(calls, server.port)

    def run(self, clients, seconds):
        before = self._calls()
        run = self.peer.wrk(PREDICT, self.connections or clients, seconds, "instances.lua", [self.instances])
        made = max(self._calls() - before, 1)
        errors = sum(int(number) for line in run.errors for number in re.findall(r"\d+", line.split(":")[-1]))
        return {"rate": run.rate * self.instances, "cpu": run.cpu, "p50": run.p50, "p99": run.p99,
                "per_call": run.count * self.instances / made, "errors": errors}


def ask(port, path, body=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


def predict(port):
    return ask(port, PREDICT, b'{"instances":[[5.1,3.5,1.4,0.2]]}')


def example_calls(port):
    return json.loads(ask(port, "/v2/models/iris/stats"))["model_stats"][0]["execution_count"]


def kserve_calls(port):
    return float(re.search(r"^request_predict_seconds_count\S* (\S+)", ask(port, "/metrics"), re.M)[1])


def alternate(cells, clients, args, what):
    """The medians by the cell's name."""
    runs = {cell.name: [] for cell in cells}
    for number in range(args.rounds):
        for cell in cells:
            progress = f"{what}, {clients} clients, round {number + 1} of {args.rounds}: {cell.name}"
            print(f"\r{progress:79}", end="", file=sys.stderr, flush=True)
            runs[cell.name].append(cell.run(clients, args.seconds))
    print("\r" + " " * 79 + "\r", end="", file=sys.stderr, flush=True)
    return {name: {key: statistics.median(run[key] for run in one) for key in one[0]} for name, one in runs.items()}


def table(section, results):
    """`results`: {clients: {row: figures}}; the recorded figures stand beside the measured ones."""
    columns = [key for key in COLUMNS if any(key in row for rows in results.values() for row in rows.values())]
    print("| clients | | " + " | ".join(COLUMNS[key][0] for key in columns) + " |")
    print("|---|---|" + "---|" * len(columns))
    for clients, rows in results.items():
        recorded = {name: of[section, clients] for name, of in RECORDED.items() if (section, clients) in of}
        for name, figures in {**rows, **recorded}.items():
            cells = (COLUMNS[key][1](figures[key]) if key in figures else "" for key in columns)
            print(f"| {clients} | {name} | " + " | ".join(cells) + " |")
    print(flush=True)


def synthetic(section, bench):
    """The policies in front of an example server."""
    title, flags = SERVERS[section]
    cells = []
    rows = policies(10)
    if section == "c":
        rows["eager, 32 at once"] = (*rows["eager"], "--batch-concurrency=32")
    for name, policy in rows.items():
        server = bench.server(flags)
        cells.append(Cell(bench.agent(name, server, policy), server, example_calls))
    ideal = f"full batches of {CAP}, direct"
    if section == "b":
        server = bench.server(flags)
        server.name = ideal
        cells.append(Cell(server, server, example_calls, CAP, connections=3))
    results = {}
    for clients in CLIENTS:
        rows = alternate(cells, clients, bench.args, title)
        if full := rows.get(ideal):
            del full["cpu"]  # The server's.
            for row in rows.values():
                row["ideal"] = row["rate"] / full["rate"]
        results[clients] = rows
    print(f"### {title}\n")
    table(section, results)
    return results


def lone(bench):
    """What the batcher adds for one client of a free server."""
    server = bench.server(())
    cells = [Cell(bench.agent(name, server, flags), server, example_calls) for name, flags in policies(10).items()]
    rows = alternate([cell for cell in cells if not cell.name.startswith("window")], 1, bench.args, "one client")
    plain = rows.pop("no batcher")["p50"]
    print("### One client of a free server\n\n| | p50 µs | more than without a batcher, µs |\n|---|---|---|")
    print(f"| no batcher | {plain:.0f} | |")
    for name, row in rows.items():
        print(f"| {name} | {row['p50']:.0f} | {row['p50'] - plain:.0f} |")
    print(flush=True)
    return {"no batcher": plain, **{name: row["p50"] for name, row in rows.items()}}


def idle(bench):
    """Context switches of all threads while nothing is asked for. Connections that are kept for a while after the
    traffic (3 s, SPEC P9) are given the time to go."""
    results = {}
    for name, flags in policies(10).items():
        server = bench.server(())
        agent = bench.agent(name, server, flags)
        agent.wrk(PREDICT, 32, 1, "instances.lua")
        time.sleep(5)
        before = switches(agent.pid)
        time.sleep(3)
        results[name] = switches(agent.pid) - before
    print("### Idle, after traffic\n\n| | wake-ups in 3 s |\n|---|---|")
    for name, count in results.items():
        print(f"| {name} | {count} |")
    print(flush=True)
    return results


def switches(pid):
    texts = [task.read_text() for task in pathlib.Path(f"/proc/{pid}/task").glob("*/status")]
    return sum(int(number) for text in texts for number in re.findall(r"ctxt_switches:\s+(\d+)", text))


def iris(bench):
    """The policies in front of the KServe SDK's own server: one process, so one server for all rows."""
    server = bench.iris()
    cells = [Cell(bench.agent(name, server, flags), server, kserve_calls) for name, flags in policies(20).items()]
    results = {clients: alternate(cells, clients, bench.args, "iris") for clients in (8, 32, 64)}
    print("### The KServe SDK's own server, iris, scikit-learn\n")
    table("iris", results)
    return results


def sweep(bench):
    """What a call of the KServe SDK's server costs by its size, one call at a time."""
    server = bench.iris()
    sizes = [2**power for power in range(8)]
    cells = [Cell(server, server, kserve_calls, size) for size in sizes]
    for cell in cells:
        cell.name = str(cell.instances)
    rows = alternate(cells, 1, bench.args, "sweep")
    results = [{"size": size, "ms": rows[str(size)]["p50"] / 1e3, "per_second": rows[str(size)]["rate"]}
               for size in sizes]
    print("### One call of the KServe SDK's server by its size\n\n| instances | ms per call | instances/s |\n|---|---|---|")
    for row in results:
        print(f"| {row['size']} | {row['ms']:.2f} | {thousands(row['per_second'])} |")
    print(flush=True)
    if bench.args.plot:
        pathlib.Path(bench.args.plot).write_text(batching_plot(results))
    return results


SECTIONS = {**{name: functools.partial(synthetic, name) for name in SERVERS},
            "lone": lone, "idle": idle, "iris": iris, "sweep": sweep}


def arguments():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("agent", type=os.path.abspath)
    args.add_argument("model_server", type=os.path.abspath)
    args.add_argument("--rounds", type=int, default=5)
    args.add_argument("--seconds", type=int, default=3)
    args.add_argument("--threads", type=int, default=0, help="the agent's; 0 leaves the choice to it")
    args.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas: %(default)s")
    args.add_argument("--python", default=str(ROOT / "target/venv/bin/python"), help="with the KServe SDK")
    args.add_argument("--json", default=str(ROOT / "target/bench/batcher.json"), help="where the figures go")
    args.add_argument("--plot", help="where the sweep's picture goes, an SVG")
    args = args.parse_args()
    args.only = args.only.split(",")
    if unknown := set(args.only) - set(SECTIONS):
        sys.exit(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    return args


def main():
    args = arguments()
    require("wrk")
    results = {}
    for name in args.only:
        with contextlib.ExitStack() as stack:
            results[name] = SECTIONS[name](Bench(args, stack))
    path = pathlib.Path(args.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


main()
