"""Stands for the agent's admin server: the page with its nonce and headers, and a scripted
status.json."""

import json
import math
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PAGE = Path(__file__).parents[2] / "src/ops/page.html"


class Server:
    """Answers every poll with the status of `step` seconds later, until `last`; then with that.

    So what the page has seen depends on how often it asked and not on how fast. `failing` is how it
    fails: `None`, an HTTP status, "silence" (the connection closes without an answer), "nonsense".
    """

    def __init__(self, agent):
        self.agent = agent
        self.last = math.inf
        self.step = 1
        self.failing = None
        self.polls = 0
        self._second = None
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.script = self
        self._http.daemon_threads = True
        self.origin = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.02,), name="page-server"
        )
        self._thread.start()

    def stop(self):
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def skip(self, seconds):
        """Time passes that nobody asks about."""
        with self._lock:
            self._second += seconds
            self.last = max(self.last, self._second)

    def status(self):
        with self._lock:
            if self._second is None:
                self._second = 0
            elif self._second < self.last:
                self._second = min(self._second + self.step, self.last)
            return self.agent.document(self._second)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self):
        if self.path == "/":
            nonce = secrets.token_urlsafe(16)
            self._answer(200, "text/html; charset=utf-8", with_nonce(nonce), policy(nonce))
        elif self.path == "/status.json":
            self._poll(self.server.script)
        else:
            self._answer(404, "text/plain", "not found")

    def _poll(self, script):
        script.polls += 1
        if script.failing is None:
            self._answer(200, "application/json", json.dumps(script.status()))
        elif script.failing == "silence":
            self.close_connection = True
        elif script.failing == "nonsense":
            self._answer(200, "application/json", '{"families":')
        else:
            self._answer(script.failing, "text/plain", "failing")

    def _answer(self, status, content_type, text, allowed="default-src 'none'"):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", allowed)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing: a failed test says what the page showed."""


def with_nonce(nonce):
    page = PAGE.read_text()
    for tag in ("style", "script"):
        page = page.replace(f"<{tag}>", f'<{tag} nonce="{nonce}">')
    return page


def policy(nonce):
    """The agent's Content-Security-Policy, to the letter."""
    return (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
