"""A store that speaks as S3 does and does wrong what a test wants. Only for what no real store can be made to do."""

import urllib.parse

from conftest import Client
from support import Handler

LISTING = (
    '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    "<EncodingType>url</EncodingType>{}</ListBucketResult>"
)


def entry(key, size, tag="tag"):
    return f"<Contents><Key>{key}</Key><ETag>&quot;{tag}&quot;</ETag><Size>{size}</Size></Contents>"


class Store(Handler):
    """One object, `m/k`, of `content`; a test's subclass overrides what goes wrong. Attributes are the class's."""

    content = b""

    def do_GET(self):
        path, _, query = self.path.partition("?")
        query = dict(urllib.parse.parse_qsl(query))
        if "list-type" in query:
            return self.list(query)
        start, end = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        self.give(start, end + 1)

    def list(self, query):
        self.answer(200, LISTING.format(entry("m/k", len(self.content))).encode(), "application/xml")

    def give(self, start, end):
        self.head(start, end)
        self.wfile.write(self.content[start:end])

    def head(self, start, end):
        self.send_response(206)
        self.send_header("ETag", '"tag"')
        self.send_header("Content-Length", str(end - start))
        self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(self.content)}")
        self.end_headers()


def client(port, **env):
    keys = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "a-secret-that-must-not-be-seen-anywhere!"}
    return Client({"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", **keys, **env})
