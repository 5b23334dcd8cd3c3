"""Starts the agent as one row of `injected.json` has it, in the namespaces that this program runs in: a network of its own, so
that the ports are free, and mounts of its own, so that the folders are there. Prints what the kubelet and a client got.
"""

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LONGEST = 20.0


class Model(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b'{"predictions":[1]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


def ask(port, method, path, headers, body=None):
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=LONGEST)
    client.request(method, path, body, headers)
    response = client.getresponse()
    response.read()
    return response.status


def await_status(ask_once):
    """The first answer of 200, or the last that was none."""
    end = time.monotonic() + LONGEST
    while True:
        try:
            status = ask_once()
        except OSError as error:
            status = str(error)
        if status == 200 or time.monotonic() > end:
            return status
        time.sleep(0.05)


def main():
    row = json.load(sys.stdin)
    for command in ["ip link set lo up", "mount -t tmpfs none /mnt", "mkdir /mnt/models /mnt/configs"]:
        subprocess.run(command.split(), check=True)
    port = int(row["args"][row["args"].index("--component-port") + 1])
    server = ThreadingHTTPServer(("127.0.0.1", port), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    agent = subprocess.Popen(
        [os.environ["KSERVE_AGENT"], *row["args"]],
        env={"PATH": os.environ["PATH"], **(row["env"] or {})},
        stderr=subprocess.PIPE,
        text=True,
    )
    probe = row["readinessProbe"]["httpGet"]
    fields = {field["name"]: field["value"] for field in probe["httpHeaders"]} | {"User-Agent": "kube-probe/1.31"}
    ready = await_status(lambda: ask(probe["port"], "GET", probe["path"], fields))
    json_type = {"Content-Type": "application/json"}
    served = await_status(
        lambda: ask(probe["port"], "POST", "/v1/models/m:predict", json_type, b'{"instances":[1]}')
    )
    agent.kill()
    print(json.dumps({"ready": ready, "served": served, "code": agent.poll(), "log": agent.stderr.read()}))


main()
