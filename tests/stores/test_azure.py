"""What only Azure does."""

import pytest
from azurite import KEY
from conftest import Client


@pytest.fixture
def bucket(azure):
    return azure.make_bucket()


def https(bucket):
    return f"https://someaccount.blob.core.windows.net/{bucket}"


def test_a_signature_in_the_url_is_a_right(azure, bucket, tmp_path):
    client = Client({"AZURE_SERVICE_URL": azure.address})
    (tmp_path / "file").write_bytes(b"content")
    all_of_it = azure.signature(bucket, read=True, list=True, write=True, create=True)
    client.ok("put", f"{https(bucket)}/a%20b?{all_of_it}", "k", tmp_path / "file")
    assert client.ok("get", f"{https(bucket)}/a%20b?{all_of_it}").output == b"content"
    # A right to read is none to write, and what is refused does not show the signature.
    reading = azure.signature(bucket, read=True, list=True)
    outcome = client.run("put", f"{https(bucket)}?{reading}", "k", tmp_path / "file")
    assert outcome.code == 1 and outcome.errors.startswith('refused: storing "k": 403: Authorization'), outcome.errors
    signature = reading.split("sig=")[1].split("&")[0]
    assert signature[:20] not in outcome.errors


def test_a_wrong_key_is_refused_and_not_shown(azure, bucket):
    outcome = Client({**azure.env, "AZURE_STORAGE_ACCESS_KEY": "AAAA" + KEY[4:]}).run("list", azure.url(bucket))
    assert outcome.code == 1 and outcome.errors.startswith('refused: listing "": 403: Auth'), outcome.errors
    assert KEY[4:24] not in outcome.errors


def test_without_credentials_what_is_public_is_read(azure):
    public, private = azure.make_bucket(public_access="container"), azure.make_bucket()
    for bucket in [public, private]:
        azure.write(azure.url(bucket), "m/a", b"content")
    client = Client({"AZURE_SERVICE_URL": azure.address})
    assert client.ok("get", f"{azure.url(public)}/m").output == b"content"
    outcome = client.run("get", f"{azure.url(private)}/m")
    assert outcome.code == 1 and outcome.errors.endswith("; no Azure credentials were found\n"), outcome.errors
