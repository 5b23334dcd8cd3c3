#!/usr/bin/env python3
"""Measure the proxy beside nginx and haproxy in one run, and print the README's table.

usage: proxy.py AGENT [--rounds N] [--seconds S] [--threads N]

Everything runs on the loopback with one worker or thread per proxy; wrk (one thread) makes the load; rounds alternate
between the peers and the median counts. CPU per request is the proxy's user and system time (/proc/PID/stat) over the
requests that wrk counted. Needs nginx, haproxy and wrk (Debian packages of these names).
"""
import argparse, os, pathlib, re, socket, statistics, sys, tempfile

from common import PEERS, Peer, free_port, require, thousands


def resident_kib(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


def start_peers(agent, folder, threads):
    ports = {name: free_port() for name in ("server", "nginx", "haproxy", "tcp", "agent")}
    for template in ("server.conf", "nginx.conf", "haproxy.cfg"):
        text = (PEERS / template).read_text()
        for name, port in ports.items():
            text = text.replace(f"{{{name}}}", str(port))
        (folder / template).write_text(text.replace("{folder}", str(folder)))
    (folder / "10m").write_bytes(os.urandom(10 * 2**20))
    nginx = ["nginx", "-e", "/dev/null", "-p", str(folder), "-c"]
    server = Peer("direct", ports["server"], nginx + [str(folder / "server.conf")], folder)
    ours = Peer("kserve-agent", ports["agent"], [agent, f"--port={ports['agent']}", f"--component-port={ports['server']}",
                "--metrics-port=0", "--admin-port=0", f"--threads={threads}"], folder)
    other = Peer("nginx", ports["nginx"], nginx + [str(folder / "nginx.conf")], folder)
    haproxy = Peer("haproxy", ports["haproxy"], ["haproxy", "-f", str(folder / "haproxy.cfg"), "-q", "-db"], folder)
    tcp = object.__new__(Peer)
    tcp.__dict__ = {**haproxy.__dict__, "name": "haproxy, TCP", "port": ports["tcp"]}
    return server, ours, other, haproxy, tcp


SCENARIOS = (
    # title, path, connections, script, the figures that count
    ("small POST, 64 connections", "/v1/models/m:predict", 64, "post.lua", ("rate", "cpu", "p50", "p99")),
    ("small POST, 1 connection", "/v1/models/m:predict", 1, "post.lua", ("rate", "cpu", "p50", "p99")),
    ("new connection per request, 32 clients", "/v1/models/m:predict", 32, "close.lua", ("rate", "cpu")),
    ("1 MiB up, 8 connections", "/upload", 8, "upload.lua", ("rate", "cpu")),
    ("10 MiB down, 8 connections", "/10m", 8, None, ("bytes", "cpu")),
)
FIGURES = {
    "rate": ("requests/s", thousands),
    "cpu": ("CPU µs/request", lambda value: f"{value:.1f}" if value < 1000 else thousands(value)),
    "p50": ("p50 µs", lambda value: f"{value:.0f}"),
    "p99": ("p99 µs", lambda value: f"{value:.0f}"),
    "bytes": ("GB/s", lambda value: f"{value / 1e9:.2f}"),
}


def measure(peers, rounds, seconds):
    for title, path, connections, script, figures in SCENARIOS:
        runs = {peer.name: [] for peer in peers}
        for number in range(rounds):
            for peer in peers:
                print(f"\r{title}: round {number + 1} of {rounds}, {peer.name:16}", end="", file=sys.stderr, flush=True)
                run = peer.wrk(path, connections, seconds, script)
                if run.errors:
                    print(f"\n{peer.name}: {run.errors}", file=sys.stderr)
                runs[peer.name].append(run)
        print(file=sys.stderr)
        for figure in figures:
            label, show = FIGURES[figure]
            medians = [statistics.median(getattr(run, figure) for run in runs[peer.name]) for peer in peers]
            print(f"| {title} | {label} | " + " | ".join(show(value) for value in medians) + " |", flush=True)


def idle_cost(peer, count=1000):
    """Bytes of resident memory per idle connection that has carried one request."""
    before = resident_kib(peer.pid)
    clients = []
    for _ in range(count):
        client = socket.create_connection(("127.0.0.1", peer.port))
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.recv(4096)
        clients.append(client)
    after = resident_kib(peer.pid)
    for client in clients:
        client.close()
    return (after - before) * 1024 / count


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("agent")
    args.add_argument("--rounds", type=int, default=5)
    args.add_argument("--seconds", type=int, default=3)
    args.add_argument("--threads", type=int, default=1)
    args = args.parse_args()
    require("nginx", "haproxy", "wrk")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        peers = start_peers(os.path.abspath(args.agent), pathlib.Path(folder), args.threads)
        _, ours, nginx, haproxy, _ = peers
        try:
            print("| scenario | figure | " + " | ".join(peer.name for peer in peers) + " |")
            print("|---|---|" + "---|" * len(peers))
            single = (ours, nginx, haproxy)
            cells = {peer.name: f"{resident_kib(peer.pid) / 1024:.1f}" for peer in single}
            print("| resident memory, idle | MiB | " + " | ".join(cells.get(peer.name, "") for peer in peers) + " |")
            cells = {peer.name: f"{idle_cost(peer):.0f}" for peer in single}
            print("| an idle connection | bytes | " + " | ".join(cells.get(peer.name, "") for peer in peers) + " |")
            cells = {ours.name: f"{ours.started * 1e3:.1f}"}
            print("| start to listening | ms | " + " | ".join(cells.get(peer.name, "") for peer in peers) + " |")
            measure(peers, args.rounds, args.seconds)
            cells = {ours.name: f"{resident_kib(ours.pid) / 1024:.1f}", nginx.name: f"{resident_kib(nginx.pid) / 1024:.1f}",
                     haproxy.name: f"{resident_kib(haproxy.pid) / 1024:.1f}"}
            print("| resident memory after all this | MiB | " + " | ".join(cells.get(peer.name, "") for peer in peers) + " |")
        finally:
            for peer in peers:
                peer.stop()
        print(f"\nThe agent's binary: {os.path.getsize(args.agent) / 1e6:.2f} MB.")


main()
