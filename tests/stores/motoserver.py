"""moto's S3, with keys that are checked by nobody: a signature that is wrong shows only with its IAM (`authorize`)."""

import sys
import uuid

import boto3
from support import Process, accepts, reserve_port

SECRET = "a-secret-of-s3/+that-must-not-be-seen-anywhere"


class S3:
    def __init__(self):
        self.port = reserve_port()
        self.process = Process([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", self.port])
        self.process.await_start(lambda: accepts(self.port), "listening port")
        self.address = f"http://127.0.0.1:{self.port}"
        self.env = {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }
        self.client = self._boto("s3")

    def _boto(self, service, **keys):
        keys = keys or {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": SECRET}
        return boto3.client(service, endpoint_url=self.address, region_name="us-east-1", **keys)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()

    def make_bucket(self):
        bucket = f"bucket-{uuid.uuid4()}"
        self.client.create_bucket(Bucket=bucket)
        return bucket

    def url(self, bucket):
        return f"s3://{bucket}"

    @staticmethod
    def _bucket(url):
        return url.removeprefix("s3://")

    def write(self, url, key, content):
        self.client.put_object(Bucket=self._bucket(url), Key=key, Body=content)

    def keys(self, url):
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket(url))
        return [one["Key"] for page in pages for one in page.get("Contents", [])]

    def read(self, url, key):
        """The bytes and the content type."""
        answer = self.client.get_object(Bucket=self._bucket(url), Key=key)
        return answer["Body"].read(), answer["ContentType"]
