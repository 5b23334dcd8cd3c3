"""A server that speaks as the Hugging Face Hub does, and its content network, which is another host.

As documented by the Hub's OpenAPI and by huggingface_hub: a revision's commit, the tree of a commit in pages with a
`Link` to the next, small files directly, large ones by a redirect to a signed URL.
"""

import hashlib
import json
import threading
from urllib.parse import parse_qs, quote, unquote, urlsplit

from server import Files, served

COMMIT = "c0ffee" + "0" * 34
TOKEN = "hf_a-token-that-only-the-hub-may-see"
LARGE = 1000


def git_oid(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Network(Files):
    """Where large files are: what a URL is signed with lets anybody in, and a token is refused as S3 refuses it."""

    etag = None

    def do_GET(self):
        if self.headers.get("Authorization") or "X-Amz-Signature=" not in self.path:
            return self.answer(400, b"Only one auth mechanism allowed")
        super().do_GET()


class Api(Files):
    """`model` are contents by paths."""

    model = {}
    revisions = {"main": COMMIT}
    is_private = False
    page = 3
    barrier = None

    def do_GET(self):
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        parts = url.path.split("/")
        self.asked.append((self.path, self.headers.get("Range"), dict(self.headers)))
        if self.is_private and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, b'{"error":"Repository not found"}', "application/json")
        match parts[1:]:
            case ["api", "models", "o", "m", "revision", revision]:
                commit = self.revisions.get(unquote(revision))
                if commit is None:
                    return self.answer(404, b'{"error":"Invalid rev id"}', "application/json")
                self.json({"id": "o/m", "sha": commit, "siblings": [{"rfilename": path} for path in self.model]})
            case ["api", "models", "o", "m", "tree", commit] if commit in self.revisions.values():
                self.tree(int(query.get("cursor", ["0"])[0]))
            case ["o", "m", "resolve", commit, *path] if commit in self.revisions.values():
                self.file(unquote("/".join(path)))
            case ["moved", "o", "m", "resolve", *rest]:
                self.redirect("/" + "/".join(["o", "m", "resolve", *rest]))
            case _:
                self.answer(404, b"")

    def tree(self, start):
        items = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": "d"}]
        items += [self.item(path, content) for path, content in self.model.items()]
        following = start + self.page
        fields = {}
        if following < len(items):
            host = self.headers["Host"]
            fields["Link"] = f'<http://{host}{urlsplit(self.path).path}?recursive=true&cursor={following}>; rel="next"'
        self.json(items[start:following], fields)

    def item(self, path, content):
        item = {"type": "file", "oid": git_oid(content), "size": len(content), "path": path}
        if len(content) >= LARGE:
            sha256 = hashlib.sha256(content).hexdigest()
            item |= {"oid": git_oid(b"pointer"), "lfs": {"oid": sha256, "size": len(content), "pointerSize": 135}}
        return item

    def file(self, path):
        content = self.model.get(path)
        if content is None:
            return self.answer(404, b"Entry not found")
        if self.barrier:
            self.barrier.wait(30)
        if len(content) < LARGE:
            return self.give(content)
        self.redirect(f"http://localhost:{self.network}/{quote(path)}?X-Amz-Signature=x")

    def redirect(self, location):
        self.send_response(302)
        self.send_header("Location", location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def json(self, value, fields=None):
        text = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        for name, field in (fields or {}).items():
            self.send_header(name, field)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


class Hub:
    """Both, serving these files."""

    def __init__(self, http_server, model, **attributes):
        self.network = served({f"/{path}": content for path, content in model.items()}, Network)
        port = http_server(self.network)
        self.api = served({}, Api, model=dict(model), network=port, **attributes)
        self.env = {"HF_ENDPOINT": f"http://127.0.0.1:{http_server(self.api)}"}

    def change(self, path, content):
        """In the network alone: not what the commit has."""
        self.network.files = self.network.files | {f"/{path}": content}


def at_once(count):
    return threading.Barrier(count)
