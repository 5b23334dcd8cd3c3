"""What the measurements share: processes under load, wrk as the load, and what the kernel says of them."""
import os, pathlib, re, shutil, socket, subprocess, sys, time, typing

PEERS = pathlib.Path(__file__).parent / "peers"
TICK = os.sysconf("SC_CLK_TCK")


def require(*tools):
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)} (Debian packages of these names)")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_listening(port, since, seconds=10):
    while time.monotonic() - since < seconds:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return time.monotonic() - since
        time.sleep(0.0002)
    sys.exit(f"nothing listens on {port}")


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def child_of(pid):
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else pid


class Run(typing.NamedTuple):
    """One run of wrk: requests/s, CPU microseconds per request of the peer, p50 and p99 in microseconds, bytes/s."""

    rate: float
    cpu: float
    p50: float
    p99: float
    bytes: float
    errors: list
    count: int


class Peer:
    """One proxy, or the server itself."""

    def __init__(self, name, port, command, folder, seconds=10):
        self.name, self.port = name, port
        began = time.monotonic()
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self.started = wait_until_listening(port, began, seconds)
        except BaseException:
            self.process.kill()
            raise
        time.sleep(0.2)  # Masters fork their workers after they listen.
        self.pid = child_of(self.process.pid)

    def wrk(self, path, connections, seconds, script=None, arguments=()):
        """The peer's `Run`; `arguments` are the script's."""
        url = f"http://127.0.0.1:{self.port}{path}"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout=60s"]
        command += ["-s", str(PEERS / script)] if script else []
        before = cpu_seconds(self.pid)
        command += [url, "--", *map(str, arguments)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        used = cpu_seconds(self.pid) - before
        count = int(re.search(r"(\d+) requests in", text)[1])
        errors = re.findall(r"(Non-2xx.*|Socket errors.*)", text)
        # wrk counts a connection that was closed as asked as a read error.
        errors = [] if script == "close.lua" else errors
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])
        cpu = used / max(count, 1) * 1e6
        return Run(rate, cpu, latency(text, "50%"), latency(text, "99%"), transfer(text), errors, count)

    def stop(self, seconds=1):
        """Asks the process to end, and ends it."""
        self.process.terminate()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def latency(text, line):
    number, unit = re.search(rf"{line}\s+([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 60e6}[unit]


def transfer(text):
    number, unit = re.search(r"Transfer/sec:\s+([\d.]+)(B|KB|MB|GB)", text).groups()
    return float(number) * {"B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}[unit]


def thousands(value):
    return f"{value:,.0f}".replace(",", " ")
