"""Stores behind a proxy of the environment: who is asked for what, and what is reached without."""

import base64
import http.client
import select
import socket

import pytest
from mock import Store, client
from support import Handler

USER = "Basic " + base64.b64encode(b"user:p@ss").decode()


class Plain(Store):
    content = b"content"


def proxy_to(port, asked):
    """A proxy that takes every host for the server at this port, and notes what it was asked."""

    class Proxy(Handler):
        def do_GET(self):
            asked.append((self.command, self.path.partition("?")[0], self.headers["Host"], self.headers["Proxy-Authorization"]))
            path = self.path.removeprefix("http://" + self.headers["Host"])
            connection = http.client.HTTPConnection("127.0.0.1", port)
            fields = {name: value for name, value in self.headers.items() if not name.lower().startswith("proxy-")}
            connection.request(self.command, path, b"".join(self.body()), fields)
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name in ["ETag", "Content-Range"]:
                if answer.getheader(name):
                    self.send_header(name, answer.getheader(name))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_PUT = do_GET

        def do_CONNECT(self):
            asked.append((self.command, self.path, self.headers["Host"], self.headers["Proxy-Authorization"]))
            self.close_connection = True
            with socket.create_connection(("127.0.0.1", port)) as server:
                self.send_response(200)
                self.end_headers()
                pairs = {self.connection: server, server: self.connection}
                while True:
                    for ready in select.select(pairs, [], [], 30)[0]:
                        piece = ready.recv(65536)
                        if not piece:
                            return
                        pairs[ready].sendall(piece)

    return Proxy


def test_a_plain_store_is_asked_by_its_whole_url(http_server, tmp_path):
    asked, kept = [], []

    class Keeping(Plain):
        def do_PUT(self):
            kept.append(b"".join(self.body()))
            self.answer(200, b"")

    store = http_server(Keeping)
    proxy = http_server(proxy_to(store, asked))
    env = {"AWS_ENDPOINT_URL": "http://store.test:8080", "HTTP_PROXY": f"http://user:p%40ss@127.0.0.1:{proxy}"}
    assert client(store, **env).ok("get", "s3://b/m").output == b"content"
    assert asked[0] == ("GET", "http://store.test:8080/b/", "store.test:8080", USER), asked
    assert asked[1] == ("GET", "http://store.test:8080/b/m/k", "store.test:8080", USER), asked
    content = b"GET /http://x HTTP/1.1\r\n" * 50_000
    (tmp_path / "file").write_bytes(content)
    client(store, **env).ok("put", "s3://b/m", "k", tmp_path / "file")
    assert asked[2][:2] == ("PUT", "http://store.test:8080/b/m/k") and kept == [content]


def test_a_store_with_tls_is_asked_through_a_tunnel(http_server, https_server):
    asked = []
    store, _ = https_server(Plain)
    proxy = http_server(proxy_to(store, asked))
    env = {
        "AWS_ENDPOINT_URL": "https://store.test",
        "S3_VERIFY_SSL": "0",
        "https_proxy": f"user:p%40ss@127.0.0.1:{proxy}",
        "HTTP_PROXY": "http://127.0.0.1:1",
    }
    assert client(store, **env).ok("get", "s3://b/m").output == b"content"
    assert set(asked) == {("CONNECT", "store.test:443", "store.test:443", USER)}, asked


def test_a_proxy_that_refuses_a_tunnel_is_told_of(http_server, https_server):
    class Refusing(Handler):
        def do_CONNECT(self):
            self.answer(407, b"")

    proxy = http_server(Refusing)
    env = {"AWS_ENDPOINT_URL": "https://store.test", "S3_VERIFY_SSL": "0", "HTTPS_PROXY": f"http://127.0.0.1:{proxy}"}
    outcome = client(proxy, **env).run("list", "s3://b/m")
    assert "no tunnel: proxy server responded 407/407" in outcome.errors, outcome.errors


@pytest.mark.parametrize("exception", [None, "store.test", "*"])
def test_what_needs_no_proxy_is_reached_without(http_server, exception):
    asked = []
    store = http_server(Plain)
    proxy = http_server(proxy_to(store, asked))
    env = {"HTTP_PROXY": f"http://127.0.0.1:{proxy}", "NO_PROXY": exception or ""}
    if exception is None:
        assert client(store, **env).ok("get", "s3://b/m").output == b"content", "the loopback"
    else:
        outcome = client(store, **env, AWS_ENDPOINT_URL="http://store.test").run("list", "s3://b/m")
        assert outcome.code == 1
    assert asked == []


def test_a_proxy_that_speaks_socks_is_an_error_and_not_gone_around(http_server):
    env = {"AWS_ENDPOINT_URL": "http://store.test", "HTTP_PROXY": "socks5://u:secret@127.0.0.1:1"}
    outcome = client(http_server(Plain), **env).run("list", "s3://b/m")
    expected = 'refused: listing "m/": HTTP_PROXY: a proxy of scheme "socks5" is not supported, one of http, https\n'
    assert outcome.errors == expected
