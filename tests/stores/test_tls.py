"""Stores by https: who is trusted, and what is said of who is not."""

import pytest
from mock import Store, client


class Plain(Store):
    content = b"content"


@pytest.fixture
def https(https_server):
    """The port of a store by https, and the file of the certificate that it has given itself."""
    return https_server(Plain)


def s3(port, host="127.0.0.1", **env):
    return client(port, AWS_ENDPOINT_URL=f"https://{host}:{port}", **env)


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_store_is_verified_against_the_file_that_is_named(https, variable):
    port, file = https
    assert s3(port, **{variable: str(file)}).ok("get", "s3://b/m").output == b"content"


def test_a_store_that_nobody_vouches_for_is_not_used(https):
    port, _ = https
    outcome = s3(port).run("get", "s3://b/m")
    assert outcome.code == 1 and "TLS: invalid peer certificate: UnknownIssuer" in outcome.errors, outcome.errors


def test_a_certificate_for_another_host_is_not_taken(https):
    port, file = https
    outcome = s3(port, "localhost", AWS_CA_BUNDLE=str(file)).run("get", "s3://b/m")
    assert outcome.code == 1 and "TLS: invalid peer certificate" in outcome.errors, outcome.errors


def test_verification_can_be_turned_off(https):
    port, _ = https
    assert s3(port, S3_VERIFY_SSL="0").ok("get", "s3://b/m").output == b"content"


def test_a_file_without_certificates_is_an_error_that_names_the_variable_and_the_file(https, tmp_path):
    (tmp_path / "empty.pem").write_text("nothing")
    outcome = s3(https[0], AWS_CA_BUNDLE=str(tmp_path / "empty.pem")).run("get", "s3://b/m")
    assert outcome.errors == f"AWS_CA_BUNDLE: {tmp_path / 'empty.pem'}: no certificate in PEM form\n"
