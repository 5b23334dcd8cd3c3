#!/usr/bin/env python3
"""Measure the proxy beside nginx and haproxy in one run, and print the README's table.

usage: proxy.py AGENT [--rounds N] [--seconds S] [--threads N]

Everything runs on the loopback with one worker or thread per proxy; wrk (one thread) makes the load; rounds alternate
between the peers and the median counts. CPU per request is the proxy's user and system time (/proc/PID/stat) over the
requests that wrk counted. Needs nginx, haproxy and wrk (Debian packages of these names).
"""
import argparse, os, pathlib, re, shutil, socket, statistics, subprocess, sys, tempfile, time

PEERS = pathlib.Path(__file__).parent / "peers"
TICK = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_listening(port, since):
    while time.monotonic() - since < 10:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return time.monotonic() - since
        time.sleep(0.0002)
    sys.exit(f"nothing listens on {port}")


def resident_kib(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def child_of(pid):
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else pid


class Peer:
    """One proxy, or the server itself."""

    def __init__(self, name, port, command, folder):
        self.name, self.port = name, port
        began = time.monotonic()
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.started = wait_until_listening(port, began)
        time.sleep(0.2)  # Masters fork their workers after they listen.
        self.pid = child_of(self.process.pid)

    def wrk(self, path, connections, seconds, script=None):
        """(requests/s, CPU microseconds per request, p50 us, p99 us, bytes/s, errors)"""
        url = f"http://127.0.0.1:{self.port}{path}"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
        command += ["-s", str(PEERS / script)] if script else []
        before = cpu_seconds(self.pid)
        text = subprocess.run(command + [url], capture_output=True, text=True, check=True).stdout
        used = cpu_seconds(self.pid) - before
        count = int(re.search(r"(\d+) requests in", text)[1])
        errors = re.findall(r"(Non-2xx.*|Socket errors.*)", text)
        # wrk counts a connection that was closed as asked as a read error.
        errors = [] if script == "close.lua" else errors
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])
        return rate, used / max(count, 1) * 1e6, latency(text, "50%"), latency(text, "99%"), transfer(text), errors


def latency(text, line):
    number, unit = re.search(rf"{line}\s+([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


def transfer(text):
    number, unit = re.search(r"Transfer/sec:\s+([\d.]+)(B|KB|MB|GB)", text).groups()
    return float(number) * {"B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}[unit]


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
    "rate": ("requests/s", 0, lambda value: f"{value:,.0f}".replace(",", " ")),
    "cpu": ("CPU µs/request", 1, lambda value: f"{value:.1f}" if value < 1000 else f"{value:,.0f}".replace(",", " ")),
    "p50": ("p50 µs", 2, lambda value: f"{value:.0f}"),
    "p99": ("p99 µs", 3, lambda value: f"{value:.0f}"),
    "bytes": ("GB/s", 4, lambda value: f"{value / 1e9:.2f}"),
}


def measure(peers, rounds, seconds):
    for title, path, connections, script, figures in SCENARIOS:
        runs = {peer.name: [] for peer in peers}
        for number in range(rounds):
            for peer in peers:
                print(f"\r{title}: round {number + 1} of {rounds}, {peer.name:16}", end="", file=sys.stderr, flush=True)
                run = peer.wrk(path, connections, seconds, script)
                if run[5]:
                    print(f"\n{peer.name}: {run[5]}", file=sys.stderr)
                runs[peer.name].append(run)
        print(file=sys.stderr)
        for figure in figures:
            label, index, show = FIGURES[figure]
            medians = [statistics.median(run[index] for run in runs[peer.name]) for peer in peers]
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
    missing = [tool for tool in ("nginx", "haproxy", "wrk") if not shutil.which(tool)]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)} (Debian packages of these names)")
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
                peer.process.terminate()
        for peer in (ours, nginx, haproxy):
            try:
                peer.process.wait(1)
            except subprocess.TimeoutExpired:
                peer.process.kill()
        print(f"\nThe agent's binary: {os.path.getsize(args.agent) / 1e6:.2f} MB.")


main()
