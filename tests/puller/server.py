"""A web server with or without ranges that cuts connections where a test wants, and tells what it was asked and sent."""

from contextlib import suppress
from urllib.parse import unquote

from support import Handler


def served(files, base=None, **attributes):
    """A class of its own for each test, since what was seen is kept in it."""
    return type("Served", (base or Files,), {"files": files, "asked": [], "sent": [], "cuts": [], **attributes})


class Files(Handler):
    """`files` are by paths. `cuts` are bytes after which the next answers end, for as long as there are any."""

    files = {}
    has_ranges = True
    etag = '"one"'
    modified = None
    content_type = "application/octet-stream"

    def handle(self):
        # A client that refuses what comes leaves in the middle of it.
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self):
        self.asked.append((self.path, self.headers.get("Range"), dict(self.headers)))
        content = self.files.get(unquote(self.path.split("?")[0]))
        if content is None:
            return self.answer(404, b"")
        self.give(content)

    def give(self, content):
        wanted = self.headers.get("Range")
        condition = self.headers.get("If-Range")
        start = 0
        if self.has_ranges and wanted and condition in (None, self.etag, self.modified):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        for name, value in [("ETag", self.etag), ("Last-Modified", self.modified), ("Content-Type", self.content_type)]:
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.write(content[start:])

    def give_without_length(self, pieces):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def write(self, content):
        if self.cuts:
            content = content[: self.cuts.pop(0)]
            self.close_connection = True
        # Before it is sent: who has got it may look at once.
        self.sent.append(len(content))
        self.wfile.write(content)
