#!/usr/bin/env python3
"""Run the message cases through a running agent. usage: run.py AGENT [options of check.py]"""
import pathlib, socket, subprocess, sys

HERE = pathlib.Path(__file__).parent


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main():
    port, server = free_port(), free_port()
    command = [sys.argv[1], f"--port={port}", f"--component-port={server}", "--metrics-port=0", "--admin-port=0", "--log-level=warn"]
    agent = subprocess.Popen(command)
    try:
        while agent.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        cases = ["--requests", HERE / "requests.json", "--responses", HERE / "responses.json"]
        check = [sys.executable, HERE / "check.py", "--proxy", f"127.0.0.1:{port}", "--server-port", str(server)]
        return subprocess.run(check + cases + sys.argv[2:]).returncode
    finally:
        agent.kill()


sys.exit(main())
