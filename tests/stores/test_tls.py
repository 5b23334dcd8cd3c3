"""Stores by https: who is trusted, and what is said of who is not."""

import datetime
import ipaddress
import ssl
import threading
from http.server import ThreadingHTTPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mock import Store, client


class Plain(Store):
    content = b"content"


@pytest.fixture
def https(tmp_path):
    """The port of a store by https, and the file of the certificate that it has given itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "store")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    file = tmp_path / "certificate.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ))  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, tmp_path / "key.pem")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Plain)
    server.daemon_threads = True
    # The handshake is its thread's, not the listener's.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server.server_address[1], file
    server.shutdown()
    server.server_close()


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
