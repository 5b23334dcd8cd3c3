"""Files of a web server: what is asked for, what comes, and how it goes on after it broke."""

import random
import signal
import subprocess
import threading
from itertools import repeat

import pytest
from conftest import Puller
from server import Files, served
from support import Handler, serving, volume_of

SIZE = 3 * 1024 * 1024 + 17
CONTENT = random.Random(1).randbytes(SIZE)


def url(port, path, host="127.0.0.1"):
    return f"http://{host}:{port}{path}"


def test_a_file_is_called_by_its_path_and_readable_for_everybody(puller, http_server):
    port = http_server(served({"/a/my model.bin": CONTENT}))
    outcome = puller.ok(url(port, "/a/my%20model.bin?x=/y"))
    assert puller.files() == {"my model.bin": CONTENT} and puller.mode("my model.bin") == "0o644"
    assert outcome.output == f"{SIZE} of {SIZE} bytes\n"


def test_an_empty_file_is_one(puller, http_server):
    puller.ok(url(http_server(served({"/m": b""})), "/m"))
    assert puller.files() == {"m": b""}


@pytest.mark.parametrize("validator", ["etag", "modified"])
def test_a_connection_that_is_cut_at_random_bytes_goes_on_there(puller, http_server, validator):
    pick = random.Random(2)
    cuts = [pick.randrange(1, 300_000) for _ in range(12)]
    versions = {"etag": {}, "modified": {"etag": None, "modified": "Wed, 21 Oct 2015 07:28:00 GMT"}}
    server = served({"/m": CONTENT}, cuts=list(cuts), **versions[validator])
    assert puller.until_ok(url(http_server(server), "/m")) == len(cuts)
    assert puller.files() == {"m": CONTENT}
    assert sum(server.sent) == SIZE, "no byte came twice"
    starts = [sum(cuts[:count]) for count in range(1, len(cuts) + 1)]
    assert [asked[1] for asked in server.asked] == [None, *(f"bytes={start}-" for start in starts)]


def test_a_cut_before_the_first_byte_is_another_attempt(puller, http_server):
    assert puller.until_ok(url(http_server(served({"/m": CONTENT}, cuts=[0, 0, 5])), "/m")) == 3
    assert puller.files() == {"m": CONTENT}


def test_a_server_without_ranges_is_asked_from_the_start(puller, http_server):
    server = served({"/m": CONTENT}, cuts=[1_000_000, 2_000_000], has_ranges=False)
    assert puller.until_ok(url(http_server(server), "/m")) == 2
    assert puller.files() == {"m": CONTENT}
    assert server.sent == [1_000_000, 2_000_000, SIZE]


def test_a_file_without_a_version_is_not_put_together_of_two(puller, http_server):
    server = served({"/m": CONTENT}, cuts=[1_000_000], etag=None)
    assert puller.until_ok(url(http_server(server), "/m")) == 1
    assert [asked[1] for asked in server.asked] == [None, None]


@pytest.mark.parametrize("etag", ['W/"weak"', None])
def test_a_weak_tag_is_no_version(puller, http_server, etag):
    server = served({"/m": CONTENT}, cuts=[1_000_000], etag=etag)
    puller.until_ok(url(http_server(server), "/m"))
    assert [asked[1] for asked in server.asked] == [None, None]


def test_a_file_that_changes_meanwhile_comes_anew(puller, http_server):
    server = served({"/m": CONTENT}, cuts=[1_000_000])
    at = url(http_server(server), "/m")
    assert puller.run(at).errors.startswith("transient: the connection ended")
    server.files, server.etag = {"/m": b"new" + CONTENT}, '"two"'
    puller.ok(at)
    assert puller.files() == {"m": b"new" + CONTENT}


class Careless(Files):
    """Sends ranges whatever the condition says."""

    def give(self, content):
        del self.headers["If-Range"]
        super().give(content)


@pytest.mark.parametrize("etag, content", [('"two"', CONTENT[::-1]), ('"one"', CONTENT + b"more"), ('"one"', b"less")])
def test_a_range_of_another_version_is_not_taken(puller, http_server, etag, content):
    server = served({"/m": CONTENT}, Careless, cuts=[1_000_000])
    at = url(http_server(server), "/m")
    puller.run(at)
    server.files, server.etag = {"/m": content}, etag
    assert puller.run(at).errors.startswith("changed: ")
    puller.ok(at)
    assert puller.files() == {"m": content}


def test_a_range_of_another_time_is_not_taken(puller, http_server):
    server = served({"/m": CONTENT}, Careless, cuts=[1_000_000], etag=None, modified="Wed, 21 Oct 2015 07:28:00 GMT")
    at = url(http_server(server), "/m")
    puller.run(at)
    server.files, server.modified = {"/m": CONTENT[::-1]}, "Wed, 21 Oct 2015 07:29:00 GMT"
    assert puller.run(at).errors.startswith("changed: ")
    puller.ok(at)
    assert puller.files() == {"m": CONTENT[::-1]}


def test_a_process_that_is_killed_goes_on_where_it_was(puller, http_server):
    class Slow(Files):
        def write(self, content):
            if self.paused:
                self.wfile.write(content[:1_000_000])
                self.going.wait(30)
                self.close_connection = True
            else:
                super().write(content)

    going = threading.Event()
    server = served({"/m": CONTENT}, Slow, paused=True, going=going)
    at = url(http_server(server), "/m")
    program = puller.start(at)
    part = puller.wait_for_size(".kserve-agent-part", 1_000_000)
    program.send_signal(signal.SIGKILL)
    program.communicate()
    going.set()
    server.paused = False
    puller.ok(at)
    assert puller.files() == {"m": CONTENT}
    assert server.asked[1][1] == f"bytes={part}-" and server.sent == [SIZE - part]


def test_a_file_of_unknown_length_comes_too(puller, http_server):
    class Chunked(Files):
        def give(self, content):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            half = content[: len(content) // 2]
            for piece in (half, content[len(half) :]):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                if self.cut and self.cuts:
                    self.cuts.pop()
                    self.close_connection = True
                    return
            self.wfile.write(b"0\r\n\r\n")

    server = served({"/m": CONTENT}, Chunked, cut=True, cuts=[1])
    assert puller.until_ok(url(http_server(server), "/m")) == 1
    assert puller.files() == {"m": CONTENT}


def test_a_hosts_fields_are_sent_to_it_and_to_no_other(puller, http_server):
    other = served({"/m": CONTENT})
    elsewhere = http_server(other)

    class Moved(Files):
        def do_GET(self):
            self.asked.append((self.path, None, dict(self.headers)))
            target = {"/a": "/b", "/b": f"http://localhost:{elsewhere}/m?signature=x"}[self.path]
            self.send_response(302)
            self.send_header("Location", target)
            self.send_header("Content-Length", "0")
            self.end_headers()

    own = served({}, Moved)
    secret = {"127.0.0.1-headers": '{"Authorization": "Bearer secret", "X-Team": "ml"}'}
    puller.ok(url(http_server(own), "/a"), **secret)
    # Called by the path that was asked for, not by one that a server made up.
    assert puller.files() == {"a": CONTENT}
    assert [fields.get("authorization") for _, _, fields in own.asked] == ["Bearer secret"] * 2
    assert [fields.get("x-team") for _, _, fields in own.asked] == ["ml"] * 2
    [(_, _, fields)] = other.asked
    assert not {"authorization", "x-team"} & {name.lower() for name in fields}


def test_redirects_have_an_end(puller, http_server):
    class Loop(Files):
        def do_GET(self):
            self.asked.append(self.path)
            self.send_response(307)
            self.send_header("Location", self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = served({}, Loop)
    assert puller.refused(url(http_server(server), "/m")) == "more than 10 redirects"
    assert len(server.asked) == 11


@pytest.mark.parametrize("status, kind", [(404, "refused"), (401, "refused"), (503, "transient"), (429, "transient")])
def test_what_a_server_says_is_told(puller, http_server, status, kind):
    class Down(Files):
        def do_GET(self):
            self.answer(status, b"")

    outcome = puller.run(url(http_server(served({}, Down)), "/m"))
    assert outcome.code == 1 and outcome.errors.startswith(f"{kind}: {status} ")


def test_what_has_come_outlives_a_server_that_lets_nobody_in_for_a_while(puller, http_server):
    server = served({"/m": CONTENT}, cuts=[1_000_000])
    at = url(http_server(server), "/m")
    puller.run(at)
    server.files = {}
    assert puller.run(at).errors == "refused: 404 Not Found\n"
    server.files = {"/m": CONTENT}
    puller.ok(at)
    assert server.asked[2][1] == "bytes=1000000-" and puller.files() == {"m": CONTENT}


def test_a_file_that_is_compressed_on_the_way_is_not_taken_for_the_model(puller, http_server):
    class Compressed(Files):
        def end_headers(self):
            self.send_header("Content-Encoding", "gzip")
            super().end_headers()

    reason = puller.refused(url(http_server(served({"/m": b"\x1f\x8b"}, Compressed)), "/m"))
    assert reason == "the server sends it compressed, which it was not asked for"


def test_a_uri_that_cant_be_used_says_what_can(puller):
    for uri in ["http://", "http://h/a%2fb", "ftp://h/m", "hf://m", "file://relative", "pvc://../x"]:
        assert puller.refused(uri)
    assert "secret" not in puller.refused("http://user:secret@h:x/m")


def test_a_full_volume_is_a_failure_that_names_it_and_is_gone_on_with(tmp_path, http_server):
    uri = url(http_server(served({"/m": CONTENT})), "/m")
    with volume_of(2 * 1024 * 1024, tmp_path / "volume") as volume:
        puller = Puller(volume)
        outcome = puller.run(uri)
        assert outcome.code == 1 and outcome.errors.startswith("transient: "), outcome.errors
        assert "No space left on device" in outcome.errors or "no space" in outcome.errors
        subprocess.run(["mount", "-o", "remount,size=8m", volume], check=True)
        puller.ok(uri)
        assert puller.files() == {"m": CONTENT}


@pytest.mark.parametrize(
    "length, errors",
    [
        (15 << 40, f"transient: no space for the model: it needs {15 << 40} bytes more, the volume has "),
        (17 << 40, f"refused: it has more than {16 << 40} bytes\n"),
    ],
)
def test_a_length_that_finds_no_place_is_told_before_a_byte_is_written(puller, http_server, length, errors):
    class Large(Files):
        def send_header(self, name, value):
            super().send_header(name, str(length) if name == "Content-Length" else value)

    assert puller.run(url(http_server(served({"/m": CONTENT}, Large)), "/m")).errors.startswith(errors)
    assert (puller.folder / ".kserve-agent-part").stat().st_size == 0


def test_a_body_without_an_end_leaves_the_volume_to_others(tmp_path, http_server):
    endless = served({"/m": b""}, give=lambda self, content: self.give_without_length(repeat(CONTENT)))
    uri = url(http_server(endless), "/m")
    with volume_of(2 * 1024 * 1024, tmp_path / "volume") as volume:
        puller = Puller(volume)
        errors = puller.run(uri).errors
        assert errors.startswith("transient: ") and "No space left on device" in errors, errors
        assert (puller.folder / ".kserve-agent-part").stat().st_size == 0
        endless.give = lambda self, content: self.give_without_length([b"short"])
        puller.ok(uri)
        assert puller.files() == {"m": b"short"}


def test_link_local_addresses_are_no_source(puller):
    """The metadata servers of clouds are there; nothing is sent to them, neither by a URL nor by a redirect."""
    for host in ["169.254.169.254", "[::ffff:169.254.169.254]", "[fe80::1]"]:
        assert puller.refused(f"http://{host}/model.bin").endswith("a link-local address is no source of models")

    class Elsewhere(Handler):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/latest/meta-data/")
            self.send_header("Content-Length", "0")
            self.end_headers()

    with serving(Elsewhere) as port:
        assert "a link-local address is no source of models" in puller.refused(f"http://127.0.0.1:{port}/model.bin")
