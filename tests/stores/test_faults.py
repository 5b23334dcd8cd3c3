"""What a client does about a store that breaks, is busy, or lies."""

import random
import re
from pathlib import Path

import pytest
from mock import LISTING, Store, client, entry

MEBI = 1024 * 1024


def test_a_connection_that_is_cut_goes_on_at_the_byte_where_it_broke(http_server):
    class Cut(Store):
        content = random.Random(1).randbytes(MEBI - 5)
        ranges = []

        def give(self, start, end):
            self.ranges.append((start, end))
            if len(self.ranges) == 3:
                return super().give(start, end)
            self.head(start, end)
            self.wfile.write(self.content[start : start + 300_000 + len(self.ranges)])
            self.close_connection = True

    outcome = client(http_server(Cut)).ok("get", "s3://b/m")
    assert outcome.output == Cut.content
    size = len(Cut.content)
    assert Cut.ranges == [(0, size), (300_001, size), (600_003, size)]
    lines = outcome.errors.splitlines()
    assert len(lines) == 2 and all("the connection ended" in line for line in lines), lines
    assert "300001 bytes came" in lines[0] and "300002 bytes came" in lines[1]


def test_a_store_that_is_busy_is_tried_again_after_the_time_it_asks_for(http_server, tmp_path):
    class Busy(Store):
        def list(self, query):
            self.send_response(503)
            self.send_header("Retry-After", "7")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_PUT(self):
            list(self.body())
            self.list(None)

    (tmp_path / "file").write_bytes(b"x" * MEBI)
    one = client(http_server(Busy))
    outcome = one.run("put", "s3://b/m", "k", tmp_path / "file")
    assert (outcome.code, outcome.errors) == (1, 'transient, after 7 s: storing "m/k": 503 Service Unavailable\n')
    assert one.run("list", "s3://b/m").errors == 'transient, after 7 s: listing "m/": 503 Service Unavailable\n'


def test_an_object_of_another_size_or_version_has_changed(http_server):
    class Longer(Store):
        content = b"123"

        def head(self, start, end):
            type(self).content = b"1234"
            super().head(start, end)

    class Newer(Store):
        content = b"123"

        def list(self, query):
            self.answer(200, LISTING.format(entry("m/k", 3, "old")).encode())

    for store in [Longer, Newer]:
        outcome = client(http_server(store)).run("get", "s3://b/m")
        assert outcome.code == 1 and outcome.errors.startswith('changed: reading "m/k": '), outcome.errors


def test_a_store_that_knows_no_ranges_gives_whole_objects_only(http_server):
    class Simple(Store):
        content = b"0123456789"

        def give(self, start, end):
            self.answer(200, self.content)

    one = client(http_server(Simple))
    assert one.ok("get", "s3://b/m").output == Simple.content
    outcome = one.run("get", "s3://b/m", "k", 2, 4)
    assert outcome.errors == 'refused: reading "m/k": no range but 200 OK\n'


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (["m/a", "m/../../etc/passwd"], 'refused: the object "m/../../etc/passwd" can\'t be a file in a folder'),
        (["m/a%00b"], 'refused: the object "m/a\\0b" can\'t be a file in a folder'),
        (["m/%1b[2J"], 'refused: the object "m/\\u{1b}[2J" can\'t be a file in a folder'),
        (["m//../a"], 'refused: the object "m//../a" can\'t be a file in a folder'),
        (["other/a"], "transient: the listing has keys that were not asked for"),
    ],
)
def test_keys_that_would_leave_the_folder_fail_the_listing(http_server, keys, reason):
    class Hostile(Store):
        def list(self, query):
            self.answer(200, LISTING.format("".join(entry(key, 1) for key in keys)).encode())

    outcome = client(http_server(Hostile)).run("list", "s3://b/m")
    assert (outcome.code, outcome.output, outcome.errors) == (1, b"", reason + "\n")


def test_a_listing_that_leads_in_circles_or_is_too_long_ends(http_server):
    class Circle(Store):
        def list(self, query):
            more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
            self.answer(200, LISTING.format(entry("m/k", 1) + more).encode())

    class Flood(Store):
        def list(self, query):
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(entry("m/k", 1).encode() * 1000)
            except OSError:
                self.close_connection = True

    outcome = client(http_server(Circle)).run("list", "s3://b/m")
    assert outcome.code == 1 and "the store repeats a page" in outcome.errors
    outcome = client(http_server(Flood)).run("list", "s3://b/m")
    assert outcome.errors == 'transient: listing "m/": an answer of over 4194304 bytes\n'


def test_a_proxys_page_is_not_taken_for_a_listing(http_server):
    class Proxy(Store):
        def list(self, query):
            self.answer(200, b"<html><body>Sign in</body></html>", "text/html")

    outcome = client(http_server(Proxy)).run("list", "s3://b/m")
    assert outcome.errors == 'transient: listing "m/": an answer that is not a whole ListBucketResult\n'


def test_a_million_keys_are_listed_in_the_memory_of_one_page(http_server):
    pages = 1000
    page = "".join(entry(f"m/{number:04}/%page%", 1) for number in range(1000))

    class Huge(Store):
        def list(self, query):
            number = int(query.get("continuation-token", "0"))
            more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{number + 1}</NextContinuationToken>"
            document = LISTING.format(page.replace("%page%", str(number)) + (more if number + 1 < pages else ""))
            self.answer(200, document.encode())

    program = client(http_server(Huge)).start("list", "s3://b/m")
    lines = 0
    # Less than all, so that it has not ended: a pipe holds a few thousand lines.
    while lines < 900_000:
        lines += program.stdout.read(64 * 1024).count(b"\n")
    status = Path(f"/proc/{program.pid}/status").read_text()
    assert int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) < 24 * 1024, "KiB, of which a page takes 4 Mi at most"
    rest, errors = program.communicate(timeout=50)
    assert (lines + rest.count(b"\n"), errors) == (1_000_000, b"")


def test_what_is_not_there_is_a_failure_that_says_so(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    one = client(1)  # A port that nobody listens on.
    outcome = one.run("put", "s3://b", "k", tmp_path / "file")
    assert outcome.code == 1 and outcome.errors.startswith('transient: storing "k": '), outcome.errors
    assert "refused (os error" in outcome.errors
    outcome = one.run("list", "s3://b", AWS_ENDPOINT_URL="http://nobody.invalid")
    assert outcome.errors.startswith('transient: listing "": '), outcome.errors


def test_a_proxy_of_the_environment_is_not_used(http_server):
    class Plain(Store):
        content = b"x"

    proxy = "http://127.0.0.1:1"
    outcome = client(http_server(Plain)).ok("get", "s3://b/m", HTTP_PROXY=proxy, http_proxy=proxy, ALL_PROXY=proxy)
    assert outcome.output == b"x"
