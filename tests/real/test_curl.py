"""`curl` with `Expect: 100-continue` (SPEC P6): the client that most people have, and one that does
send the body only when it is told to.
"""

import hashlib
import random
import socket
import subprocess

import pytest
from support import Handler

SIZE = 2 * 1024 * 1024


class Willing(Handler):
    """Says 100 (`BaseHTTPRequestHandler` does) and reads the body."""

    def do_POST(self):
        digest = hashlib.sha256()
        for piece in self.body():
            digest.update(piece)
        self.answer(200, digest.hexdigest().encode())


class Unwilling(Handler):
    """Answers by the path, `/413` or `/417`, without asking for the body or reading it."""

    def handle_expect_100(self):
        self._refuse()
        return False

    def do_POST(self):
        self._refuse()

    def _refuse(self):
        self.close_connection = True
        self.send_response(int(self.path[1:]))
        self.send_header("Connection", "close")
        self.send_header("Content-Length", "8")
        self.end_headers()
        self.wfile.write(b"no, sir\n")
        # A close with unread bytes resets the connection and may take the answer with it, so the
        # peer's end is awaited (RFC 9112 section 9.6). The answer does not wait for it.
        self.connection.shutdown(socket.SHUT_WR)
        while self.rfile.read1(self.PIECE):
            pass


@pytest.fixture
def flowers(tmp_path):
    path = tmp_path / "flowers"
    path.write_bytes(random.Random(7).randbytes(SIZE))
    return path


def curl(port, path, *arguments):
    """Runs it: `(exit code, status, body, what -v tells)`. It waits a minute for the 100 before it
    would send the body unasked, so a 100 that got lost is a test that fails."""
    command = [
        "curl", "--disable", "--noproxy", "*", "--silent", "--verbose", "--max-time", "30",
        "--expect100-timeout", "60", "--write-out", "\n%{http_code}",
        *arguments, f"http://127.0.0.1:{port}{path}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    body, _, status = done.stdout.decode().rpartition("\n")
    return done.returncode, int(status), body, done.stderr.decode(errors="replace")


def test_curl_is_told_to_go_on_and_its_body_arrives(agent, http_server, flowers):
    port = agent(http_server(Willing)).port
    code, status, body, told = curl(
        port, "/", "--header", "Expect: 100-continue", "--data-binary", f"@{flowers}"
    )
    assert (code, status) == (0, 200), told
    assert body == hashlib.sha256(flowers.read_bytes()).hexdigest()
    assert "< HTTP/1.1 100" in told


def test_curl_is_told_to_go_on_with_a_chunked_body(agent, http_server, flowers):
    port = agent(http_server(Willing)).port
    code, status, body, told = curl(
        port, "/", "--header", "Expect: 100-continue", "--header", "Transfer-Encoding: chunked",
        "--data-binary", f"@{flowers}",
    )  # fmt: skip
    assert (code, status) == (0, 200), told
    assert body == hashlib.sha256(flowers.read_bytes()).hexdigest()
    assert "< HTTP/1.1 100" in told


@pytest.mark.parametrize("refusal", [413, 417])
def test_curl_gets_a_refusal_instead_of_the_100(agent, http_server, flowers, refusal):
    """On 417 curl tries again without `Expect`, as RFC 9110 section 10.1.1 has it, and is refused
    again."""
    port = agent(http_server(Unwilling)).port
    code, status, body, told = curl(
        port, f"/{refusal}", "--header", "Expect: 100-continue", "--data-binary", f"@{flowers}"
    )
    assert (code, status) == (0, refusal), told
    assert body.endswith("no, sir\n")
    assert "HTTP/1.1 100" not in told


def test_curl_gets_an_early_refusal_while_it_sends(agent, http_server, flowers):
    """Without `Expect` the body is on its way when the answer comes; the agent may not reset the
    connection under it."""
    port = agent(http_server(Unwilling)).port
    code, status, body, told = curl(
        port, "/413", "--header", "Expect:", "--data-binary", f"@{flowers}"
    )
    assert (code, status, body) == (0, 413, "no, sir\n"), told
