"""Azurite, Microsoft's own emulator of Azure Blob Storage, which checks every signature."""

import os
import uuid
from datetime import datetime, timedelta, timezone

from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, ContentSettings, generate_container_sas
from support import Process, accepts, reserve_port

ACCOUNT = "someaccount"
KEY = "YS1rZXktb2YtYXp1cmUtdGhhdC1tdXN0LW5vdC1iZS1zZWVuLWFueXdoZXJlISE="


class Azure:
    def __init__(self):
        self.port = reserve_port()
        self.process = Process(
            [
                os.environ["AZURITE"], "--inMemoryPersistence", "--silent", "--disableTelemetry",
                "--skipApiVersionCheck",  # The SDK is newer.
                "--blobHost", "127.0.0.1", "--blobPort", self.port,
            ],
            {"PATH": os.environ["PATH"], "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"},
        )  # fmt: skip
        self.process.await_start(lambda: accepts(self.port), "listening port")
        self.address = f"http://127.0.0.1:{self.port}/{ACCOUNT}"
        self.env = {
            "AZURE_SERVICE_URL": self.address,
            "AZURE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCESS_KEY": KEY,
        }
        self.client = BlobServiceClient(self.address, credential={"account_name": ACCOUNT, "account_key": KEY})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()
        self.process.kill()

    def make_bucket(self, **options):
        bucket = f"bucket-{uuid.uuid4()}"
        self.client.create_container(bucket, **options)
        return bucket

    def url(self, bucket):
        return f"abfs://{bucket}@{ACCOUNT}.dfs.core.windows.net"

    def write(self, url, key, content):
        settings = ContentSettings(content_type="text/plain")
        blob = self.client.get_blob_client(bucket_of(url), key)
        blob.upload_blob(content, overwrite=True, content_settings=settings)

    def keys(self, url):
        return list(self.client.get_container_client(bucket_of(url)).list_blob_names())

    def read(self, url, key):
        """The bytes and the content type."""
        stream = self.client.get_blob_client(bucket_of(url), key).download_blob()
        return stream.readall(), stream.properties.content_settings.content_type

    def signature(self, bucket, **rights):
        """A query with these rights for an hour."""
        return generate_container_sas(
            ACCOUNT, bucket, account_key=KEY, permission=ContainerSasPermissions(**rights),
            expiry=datetime.now(timezone.utc) + timedelta(hours=1),
        )  # fmt: skip


def bucket_of(url):
    return url.removeprefix("abfs://").split("@")[0]
