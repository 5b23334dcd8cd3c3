"""Records as JSON has them, their files, and the row that csv and parquet are to have for each."""

import base64
import csv
import io
import json
import os
import random
import subprocess
import sys

PROGRAM = "RECORDS_EXAMPLE"
# Longest wait for one file.
DEADLINE = 60
COLUMNS = [
    "url",
    "bytes",
    "contentType",
    "reqType",
    "id",
    "sourceUri",
    "inferenceService",
    "namespace",
    "component",
    "endpoint",
    "metadata",
    "annotations",
    "certName",
    "tlsSkipVerify",
]
TEXTS = ["contentType", "reqType", "id", "inferenceService", "namespace", "component", "endpoint", "certName"]
# What a careless writer of csv, JSON or parquet would get wrong.
CHARACTERS = "ab,;\"'\r\n\t \0\x1b\\/{}[]=+-@é\u2028\ufeff😀"
EPOCH = "0001-01-01T00:00:00Z"


def go_url(scheme, host, path, query=""):
    """A URL as Go's encoding/json writes it."""
    return {
        "Scheme": scheme,
        "Opaque": "",
        "User": None,
        "Host": host,
        "Path": path,
        "Fragment": "",
        "RawQuery": query,
        "RawPath": "",
        "RawFragment": "",
        "ForceQuery": False,
        "OmitHost": False,
    }


def record(payload=b"{}", **members):
    """A record with nothing missing."""
    return {
        "url": go_url("s3", "bucket", "/prefix"),
        "bytes": base64.b64encode(payload).decode(),
        "contentType": "application/json",
        "reqType": "org.kubeflow.serving.inference.request",
        "id": "d9b1c9a2-6d2f-4c5e-8a37-2f6f3b1f1c11",
        "sourceUri": go_url("http", "localhost:9081", "/", "a=b"),
        "inferenceService": "iris",
        "namespace": "ns",
        "component": "predictor",
        "endpoint": "default",
        "metadata": {"X-A": ["1", "2"], "X-B": [""]},
        "annotations": {"k": "v"},
        "certName": "service-ca.crt",
        "tlsSkipVerify": True,
        "occurrenceTime": "2026-01-02T03:04:05.6Z",
        **members,
    }


def random_records(seed, count):
    """Records with any members missing and any text in the others; the same for the same seed."""
    chance = random.Random(seed)

    def text():
        return "".join(chance.choices(CHARACTERS, k=chance.randrange(12)))

    def one():
        whole = record(
            chance.randbytes(chance.choice([0, 1, 2, 3, 100])),
            metadata={text(): [text() for _ in range(chance.randrange(3))] for _ in range(chance.randrange(4))},
            annotations={text(): text() for _ in range(chance.randrange(4))},
            tlsSkipVerify=chance.random() < 0.5,
            **{name: text() for name in TEXTS},
        )
        return {name: value for name, value in whole.items() if chance.random() < 0.8}

    return [one() for _ in range(count)]


def file(form, records):
    """The file of these records, to whose maker URLs are plain texts."""
    urls = ["url", "sourceUri"]
    plain = [{**one, **{name: url_text(one[name]) for name in urls if name in one}} for one in records]
    program = [os.environ[PROGRAM], form]
    made = subprocess.run(program, input=json.dumps(plain).encode(), stdout=subprocess.PIPE, timeout=DEADLINE, check=True)
    return made.stdout


def row(posted):
    """Column to value; metadata and annotations as they are in the JSON text."""
    url = {name: url_text(posted.get(name)) for name in ["url", "sourceUri"]}
    maps = {name: posted.get(name) or None for name in ["metadata", "annotations"]}
    texts = {name: posted.get(name, "") for name in ["bytes", *TEXTS]}
    values = {**url, **maps, **texts, "tlsSkipVerify": posted.get("tlsSkipVerify", False)}
    return {name: values[name] for name in COLUMNS}


def url_text(parts):
    if not parts:
        return ""
    query = f"?{parts['RawQuery']}" if parts["RawQuery"] else ""
    return f"{parts['Scheme']}://{parts['Host']}{parts['Path']}{query}"


def read_row(values):
    """The row that a reader gave, with the JSON texts read."""
    return {
        name: (json.loads(value) if value else None) if name in ["metadata", "annotations"] else value
        for name, value in values.items()
    }


def csv_rows(file):
    csv.field_size_limit(sys.maxsize)
    header, *rows = csv.reader(io.StringIO(file.decode(), newline=""), strict=True)
    assert header == COLUMNS
    return [read_row(dict(zip(COLUMNS, values, strict=True))) for values in rows]
