"""fake-gcs-server, which speaks Google's JSON API and checks no rights."""

import json
import os
import urllib.parse
import urllib.request
import uuid

from support import Process, accepts, reserve_port


class Gcs:
    def __init__(self):
        self.port = reserve_port()
        self.process = Process(
            [
                os.environ["FAKE_GCS_SERVER"], "-backend", "memory", "-scheme", "http",
                "-host", "127.0.0.1", "-port", self.port, "-log-level", "warn",
            ]
        )  # fmt: skip
        self.process.await_start(lambda: accepts(self.port), "listening port")
        self.address = f"http://127.0.0.1:{self.port}"
        self.env = {"STORAGE_EMULATOR_HOST": self.address}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()

    def _ask(self, method, path, content=None, content_type="application/json"):
        request = urllib.request.Request(self.address + path, content, {"Content-Type": content_type}, method=method)
        with urllib.request.urlopen(request) as answer:
            return answer.read()

    def make_bucket(self):
        bucket = f"bucket-{uuid.uuid4()}"
        self._ask("POST", "/storage/v1/b?project=p", json.dumps({"name": bucket}).encode())
        return bucket

    def url(self, bucket):
        return f"gs://{bucket}"

    def write(self, url, key, content):
        query = urllib.parse.urlencode({"uploadType": "media", "name": key})
        self._ask("POST", f"/upload/storage/v1/b/{bucket_of(url)}/o?{query}", content, "text/plain")

    def keys(self, url):
        listing = json.loads(self._ask("GET", f"/storage/v1/b/{bucket_of(url)}/o?maxResults=1000"))
        assert "nextPageToken" not in listing
        return [one["name"] for one in listing.get("items", [])]

    def read(self, url, key):
        """The bytes and the content type."""
        path = f"/storage/v1/b/{bucket_of(url)}/o/{urllib.parse.quote(key, safe='')}"
        return self._ask("GET", f"{path}?alt=media"), json.loads(self._ask("GET", path))["contentType"]


def bucket_of(url):
    return url.removeprefix("gs://")
