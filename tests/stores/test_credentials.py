"""Whose rights a store is asked with. What no server here checks, the standard library or the vendor's SDK does."""

import base64
import hmac
import json
import urllib.parse

import pytest
from azurite import ACCOUNT
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from conftest import Client
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from mock import LISTING, Store, client, entry
from support import Handler

STS = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}</AccessKeyId>
<SecretAccessKey>the-secret-of-{key}</SecretAccessKey><SessionToken>the-token-of-{key}</SessionToken>
<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""


def form_of(handler):
    return dict(urllib.parse.parse_qsl(b"".join(handler.body()).decode()))


# S3


def botocores_signature(method, url, credentials):
    """The signature that AWS's own library makes for a presigned URL."""
    parts = urllib.parse.urlsplit(url)
    query = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
    given = dict(query)
    kept = [(name, value) for name, value in query if name != "X-Amz-Signature"]
    unsigned = parts._replace(query=urllib.parse.urlencode(kept, quote_via=urllib.parse.quote))
    request = AWSRequest(method, urllib.parse.urlunsplit(unsigned), headers={"host": parts.netloc})
    request.context["timestamp"] = given["X-Amz-Date"]
    auth = S3SigV4QueryAuth(credentials, "s3", "eu-west-1", int(given["X-Amz-Expires"]))
    text = auth.string_to_sign(request, auth.canonical_request(request))
    return auth.signature(text, request), given


@pytest.mark.parametrize("token", [None, "a-session-token/+=="])
def test_what_is_signed_is_what_awss_own_library_signs(http_server, tmp_path, token):
    secret = "a-secret-that-must-not-be-seen-anywhere!"
    seen = []

    class Checked(Store):
        content = b"x"

        def do_GET(self):
            self.check("GET")
            super().do_GET()

        def do_PUT(self):
            list(self.body())
            self.check("PUT")
            self.answer(200, b"")

        def check(self, method):
            url = f"http://{self.headers['Host']}{self.path}"
            signature, given = botocores_signature(method, url, Credentials("AKIDEXAMPLE", secret, token))
            assert given.get("X-Amz-Security-Token") == token
            seen.append((method, signature == given["X-Amz-Signature"]))

    (tmp_path / "file").write_bytes(b"x")
    one = client(http_server(Checked), AWS_DEFAULT_REGION="eu-west-1", AWS_SESSION_TOKEN=token or "")
    one.ok("put", "s3://b/m", "a b/ü&?#%2F+=.json", tmp_path / "file")
    one.ok("get", "s3://b/m")
    assert seen == [("PUT", True), ("GET", True), ("GET", True)]


def test_without_credentials_nothing_is_signed(http_server):
    class Public(Store):
        content = b"x"

        def do_GET(self):
            assert "X-Amz" not in self.path and "Authorization" not in self.headers
            super().do_GET()

    class Private(Store):
        def do_GET(self):
            self.answer(403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")

    port = http_server(Public)
    assert client(port, awsAnonymousCredential="true").ok("get", "s3://b/m").output == b"x"
    assert Client({"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}).ok("get", "s3://b/m").output == b"x"
    outcome = Client({"AWS_ENDPOINT_URL": f"http://127.0.0.1:{http_server(Private)}"}).run("list", "s3://b/m")
    assert outcome.errors == 'refused: listing "m/": 403: AccessDenied: Access Denied; no AWS credentials were found\n'


def test_a_role_is_taken_by_motos_sts(s3, tmp_path):
    bucket = s3.make_bucket()
    s3.write(s3.url(bucket), "m/k", b"content")
    (tmp_path / "token").write_text("eyJ.a.token\n")
    role = {
        "AWS_ENDPOINT_URL": s3.address,
        "AWS_ENDPOINT_URL_STS": s3.address,
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/reader",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
    }
    assert Client(role).ok("get", f"s3://{bucket}/m").output == b"content"
    outcome = Client({**role, "AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere"}).run("list", f"s3://{bucket}")
    assert "AWS_WEB_IDENTITY_TOKEN_FILE: /nowhere: No such file" in outcome.errors


def test_keys_of_a_role_that_have_ended_are_asked_for_again_with_the_files_new_token(http_server, tmp_path):
    file = tmp_path / "token"
    file.write_text("token-1")
    tokens = []

    class Sts(Handler):
        def do_POST(self):
            tokens.append(form_of(self)["WebIdentityToken"])
            file.write_text(f"token-{len(tokens) + 1}")
            self.answer(200, STS.format(key=f"KEY{len(tokens)}").encode())

    class Ended(Store):
        content = b"content"

        def give(self, start, end):
            if "X-Amz-Credential=KEY1" in self.path:
                return self.answer(400, b"<Error><Code>ExpiredToken</Code><Message>ended</Message></Error>")
            return super().give(start, end)

    outcome = Client({
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{http_server(Ended)}",
        "AWS_ENDPOINT_URL_STS": f"http://127.0.0.1:{http_server(Sts)}",
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/reader",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(file),
    }).ok("get", "s3://b/m")  # fmt: skip
    assert outcome.output == b"content" and outcome.errors.startswith("transient: "), outcome.errors
    assert tokens == ["token-1", "token-2"]


# Tokens: Azure and Google


class Tokens(Handler):
    """Gives `token-1`, `token-2` and so on; a subclass looks at who asks. Attributes are the class's."""

    given = 0

    def give(self):
        type(self).given += 1
        answer = {"access_token": f"token-{self.given}", "expires_in": 3599, "token_type": "Bearer"}
        self.answer(200, json.dumps(answer).encode(), "application/json")


class Guarded(Handler):
    """A store with `m/k`, whose first token ends after the listing."""

    def do_GET(self):
        token = self.headers["Authorization"]
        is_listing = "prefix=" in self.path
        if token != ("Bearer token-1" if is_listing else "Bearer token-2"):
            return self.answer(401, b"")
        self.answer(200, self.listing() if is_listing else b"content")


class GuardedAzure(Guarded):
    def listing(self):
        return (
            b"<EnumerationResults><Blobs><Blob><Name>m/k</Name><Properties><Content-Length>7</Content-Length>"
            b"</Properties></Blob></Blobs><NextMarker /></EnumerationResults>"
        )


class GuardedGoogle(Guarded):
    def listing(self):
        return json.dumps({"items": [{"name": "m/k", "size": "7"}]}).encode()


@pytest.mark.parametrize("proof", ["secret", "file"])
def test_azures_directory_gives_tokens_for_a_client(http_server, tmp_path, proof):
    forms = []

    class Directory(Tokens):
        def do_POST(self):
            assert self.path == "/tenant/oauth2/v2.0/token"
            forms.append(form_of(self))
            self.give()

    (tmp_path / "token").write_text("eyJ.of.kubernetes")
    proofs = {
        "secret": {"AZURE_CLIENT_SECRET": "s&cret=+that-is-not-shown"},
        "file": {"AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "token")},
    }
    outcome = Client({
        "AZURE_SERVICE_URL": f"http://127.0.0.1:{http_server(GuardedAzure)}",
        "AZURE_AUTHORITY_HOST": f"http://127.0.0.1:{http_server(Directory)}/",
        "AZURE_TENANT_ID": "tenant",
        "AZURE_CLIENT_ID": "client",
        **proofs[proof],
    }).ok("get", f"abfs://c@{ACCOUNT}.dfs.core.windows.net/m")  # fmt: skip
    assert outcome.output == b"content"
    assert outcome.errors.startswith('transient: reading "m/k": 401'), outcome.errors
    assert len(forms) == 2 and forms[0]["scope"] == "https://storage.azure.com/.default"
    if proof == "secret":
        assert forms[0]["client_secret"] == "s&cret=+that-is-not-shown"
    else:
        assert forms[0]["client_assertion"] == "eyJ.of.kubernetes"


def test_a_token_from_the_environment_is_sent_to_azure(http_server):
    env = {"AZURE_SERVICE_URL": f"http://127.0.0.1:{http_server(GuardedAzure)}", "AZURE_ACCESS_TOKEN": "token-1"}
    outcome = Client(env).run("get", "abfs://c/m", AZURE_ACCESS_TOKEN="token-1")
    assert outcome.errors.startswith('refused: reading "m/k": 401'), outcome.errors


def test_googles_token_is_given_for_a_statement_that_the_accounts_key_has_signed(http_server, tmp_path):
    key = rsa.generate_private_key(65537, 2048)

    def decode(part):
        return base64.urlsafe_b64decode(part + "==")

    class OAuth(Tokens):
        def do_POST(self):
            form = form_of(self)
            assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
            text, _, signature = form["assertion"].rpartition(".")
            key.public_key().verify(decode(signature), text.encode(), padding.PKCS1v15(), hashes.SHA256())
            claims = json.loads(decode(text.split(".")[1]))
            assert claims["iss"] == "a@example.com" and claims["exp"] - claims["iat"] == 3600
            self.give()

    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    (tmp_path / "key.json").write_text(json.dumps({
        "type": "service_account", "client_email": "a@example.com", "private_key": pem, "private_key_id": "17",
        "token_uri": f"http://127.0.0.1:{http_server(OAuth)}/token",
    }))  # fmt: skip
    outcome = Client({
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"http://127.0.0.1:{http_server(GuardedGoogle)}/",
        "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json"),
    }).ok("get", "gs://bucket/m")  # fmt: skip
    assert outcome.output == b"content"
    assert outcome.errors.startswith('transient: reading "m/k": 401'), outcome.errors


def test_googles_metadata_server_gives_a_token_and_without_one_nobody_asks(http_server):
    class Metadata(Tokens):
        def do_GET(self):
            assert self.path == "/computeMetadata/v1/instance/service-accounts/default/token"
            assert self.headers["Metadata-Flavor"] == "Google"
            self.give()

    env = {"CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"http://127.0.0.1:{http_server(GuardedGoogle)}"}
    one = Client({**env, "GCE_METADATA_HOST": f"127.0.0.1:{http_server(Metadata)}"})
    assert one.ok("get", "gs://bucket/m").output == b"content"
    outcome = Client({**env, "GCE_METADATA_HOST": "127.0.0.1:1"}).run("get", "gs://bucket/m")
    assert outcome.errors == 'transient: listing "m/": 401 Unauthorized; no Google credentials were found\n'
