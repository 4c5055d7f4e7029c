"""Our signatures are those of the vendors' own libraries, and those of local URLs fit nothing else."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

import pytest
from azure.storage.blob import BlobSasPermissions, generate_blob_sas
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.signers import CloudFrontSigner as VendorsCloudFrontSigner
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import assume, given
from hypothesis import strategies as st

from data_layer.errors import InvalidSignatureError
from data_layer.storage import AzureLocation, AzureStorage
from data_layer.storage.keys import is_key
from data_layer.storage.signing import azure, s3
from data_layer.storage.signing.cloudfront import CloudFrontSigner
from data_layer.storage.signing.local import LocalUrlSigner
from data_layer.storage.signing.request import HeaderOverrides, SigningRequest
from data_layer.storage.signing.s3 import S3Credentials

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
KEY = base64.b64encode(b"a key of thirty-two characters..").decode()
keys = st.text(min_size=1, max_size=40).filter(is_key)
headers = st.none() | st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)


answers = st.fixed_dictionaries(
    dict.fromkeys(("content_type", "content_disposition", "content_encoding", "cache_control"), headers)
)


def signing_request(
    key: str, method: Any = "GET", seconds: int = 60, *, size: int | None = None, **answer: Any
) -> SigningRequest:
    return SigningRequest(key, method, NOW, seconds, HeaderOverrides(**answer), size)


@given(key=keys, answer=answers, seconds=st.integers(1, 604800), token=headers)
def test_s3_as_botocore_signs(key: str, answer: dict[str, Any], seconds: int, token: str | None) -> None:
    signed = s3.sign(
        signing_request(key, seconds=seconds, **answer),
        base_url="https://pictures.s3.eu-central-1.amazonaws.com",
        region="eu-central-1",
        credentials=S3Credentials("AKID", "secret", token),
    )
    parts = urlsplit(signed.url)
    ours = dict(parse_qsl(parts.query, strict_parsing=True))
    signature = ours.pop("X-Amz-Signature")
    query = "&".join(part for part in parts.query.split("&") if not part.startswith("X-Amz-"))
    request = AWSRequest("GET", f"https://{parts.netloc}{parts.path}{'?' if query else ''}{query}")
    _botocore(token, seconds).add_auth(request)
    theirs = dict(parse_qsl(urlsplit(request.url).query))
    assert theirs.pop("X-Amz-Signature") == signature
    assert theirs == ours


def _botocore(token: str | None, seconds: int) -> Any:
    class Then(S3SigV4QueryAuth):  # type: ignore[misc]  # botocore has no types.
        def add_auth(self, request: Any) -> None:
            request.context["timestamp"] = NOW.strftime("%Y%m%dT%H%M%SZ")
            self._modify_request_before_signing(request)
            request_text = self.canonical_request(request)
            self._inject_signature_to_request(
                request, self.signature(self.string_to_sign(request, request_text), request)
            )

    return Then(Credentials("AKID", "secret", token), "s3", "eu-central-1", expires=seconds)


def test_s3_binds_the_headers_of_an_upload() -> None:
    options: dict[str, Any] = {
        "base_url": "http://host:9000/bucket",
        "region": "us-east-1",
        "credentials": S3Credentials("AKID", "secret"),
    }
    plain = s3.sign(signing_request("a", "PUT"), **options)
    typed = s3.sign(
        signing_request("a", "PUT", content_type="image/png"),
        headers={"x-amz-server-side-encryption": "AES256"},
        **options,
    )
    assert plain.headers == {}
    assert typed.headers == {"x-amz-server-side-encryption": "AES256", "content-type": "image/png"}
    query = parse_qs(urlsplit(typed.url).query)
    assert query["X-Amz-SignedHeaders"] == ["content-type;host;x-amz-server-side-encryption"]
    sized = s3.sign(signing_request("a", "PUT", size=79), **options)
    assert sized.headers == {"content-length": "79"}
    assert parse_qs(urlsplit(sized.url).query)["X-Amz-SignedHeaders"] == ["content-length;host"]


@given(key=keys, answer=answers, seconds=st.integers(1, 604800))
def test_azure_as_microsoft_signs(key: str, answer: dict[str, Any], seconds: int) -> None:
    signing = signing_request(key, seconds=seconds, **answer)
    ours = azure.sign(
        signing, base_url="https://x.blob.core.windows.net/c", account="x", account_key=KEY, container="c"
    )
    with mock.patch("azure.storage.blob._shared_access_signature.X_MS_VERSION", azure.VERSION):
        theirs = generate_blob_sas(
            "x",
            "c",
            key,
            account_key=KEY,
            permission=BlobSasPermissions(read=True),
            expiry=signing.expires_at,
            protocol="https",
            **answer,
        )
    assert dict(parse_qsl(urlsplit(ours.url).query)) == dict(parse_qsl(theirs))


@pytest.fixture(scope="module")
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def key_file(tmp_path: Path, private_key: rsa.RSAPrivateKey) -> Path:
    path = tmp_path / "key.pem"
    path.write_bytes(
        private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


@pytest.mark.parametrize("disposition", [None, 'attachment; filename="a&b.txt"'])
def test_cloudfront_as_botocore_signs(key_file: Path, private_key: rsa.RSAPrivateKey, disposition: str | None) -> None:
    ours = CloudFrontSigner("K123", key_file).sign(
        signing_request("ä/b c.png", content_disposition=disposition), base_url="https://cdn.example.com/x"
    )
    vendors = VendorsCloudFrontSigner(
        "K123",
        lambda message: private_key.sign(message, padding.PKCS1v15(), hashes.SHA1()),  # noqa: S303  (theirs)
    )
    unsigned = "https://cdn.example.com/x/%C3%A4/b%20c.png"
    if disposition is not None:
        unsigned += "?response-content-disposition=attachment%3B%20filename%3D%22a%26b.txt%22"
    assert ours.url == vendors.generate_presigned_url(unsigned, date_less_than=NOW + timedelta(seconds=60))


grants = st.tuples(
    keys,
    st.sampled_from(["GET", "PUT"]),
    st.integers(1, 604800),
    st.none() | st.sampled_from(["text/html", "image/png"]),
    *(headers, headers, headers),
    st.none() | st.integers(0, 100),
)


@given(made=grants, used=grants)
def test_a_local_signature_fits_nothing_else(made: Any, used: Any) -> None:
    signer = LocalUrlSigner(["secret"])
    urls = []
    for key, method, seconds, *answer, size in (made, used):
        signing = SigningRequest(
            key, method, datetime.now(UTC).replace(microsecond=0), seconds, HeaderOverrides(*answer), size
        )
        urls.append(dict(parse_qsl(urlsplit(signer.sign(signing).url).query)))
    assume(made != used)
    forged = urls[1] | {"signature": urls[0]["signature"]}
    with pytest.raises(InvalidSignatureError):
        signer.verify(used[1], used[0], forged, content_type=used[3])
    grant = signer.verify(made[1], made[0], urls[0], content_type=made[3])
    assert (grant.method, grant.headers, grant.size) == (made[1], HeaderOverrides(*made[3:7]), made[7])


@given(key=keys)
def test_a_local_url_leads_back_to_its_key(key: str) -> None:
    signed = LocalUrlSigner(["secret"], public_url="https://files.example.com").sign(
        SigningRequest(key, "GET", datetime.now(UTC), 60)
    )
    parts = urlsplit(signed.url)
    assert signed.url.isascii()
    assert (parts.netloc, unquote(parts.path)) == ("files.example.com", f"/v1/files/{key}")


def test_a_local_url_may_be_asked_for_with_head() -> None:
    signer = LocalUrlSigner(["secret"])
    query = dict(parse_qsl(urlsplit(signer.sign(SigningRequest("a", "GET", datetime.now(UTC), 60)).url).query))
    assert signer.verify("HEAD", "a", query).method == "GET"
    for method in ("DELETE", "POST", "get"):
        with pytest.raises(InvalidSignatureError):
            signer.verify(method, "a", query)


def test_a_local_url_expires_a_minute_after_its_time() -> None:
    signer = LocalUrlSigner(["secret"])

    def query(age: int) -> dict[str, str]:
        made = datetime.now(UTC) - timedelta(seconds=age)
        return dict(parse_qsl(urlsplit(signer.sign(SigningRequest("a", "GET", made, 10)).url).query))

    signer.verify("GET", "a", query(age=60))
    with pytest.raises(InvalidSignatureError, match="expired"):
        signer.verify("GET", "a", query(age=75))


@given(query=st.dictionaries(st.sampled_from(["expires", "key", "signature", "type", "size"]), st.text()))
def test_any_nonsense_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(InvalidSignatureError):
        LocalUrlSigner(["secret"]).verify("GET", "a", query)


def test_another_secret_and_rotation() -> None:
    old, new, both = (LocalUrlSigner(secrets) for secrets in (["old"], ["new"], ["new", "old"]))
    signing = SigningRequest("a", "GET", datetime.now(UTC), 60)
    of_old, of_both = (dict(parse_qsl(urlsplit(signer.sign(signing).url).query)) for signer in (old, both))
    both.verify("GET", "a", of_old)
    new.verify("GET", "a", of_both)
    with pytest.raises(InvalidSignatureError):
        new.verify("GET", "a", of_old)
    assert "old" not in json.dumps(of_old)


async def test_a_cdn_is_signed_for_with_the_same_signature() -> None:
    place = AzureLocation("c", "x", "https://x.blob.core.windows.net", account_key=KEY)
    storage = AzureStorage(place, max_file_size=1, cdn_url="https://cdn.example.com/c")
    assert storage.url("a b") == "https://cdn.example.com/c/a%20b"
    assert (await storage.signed_url("a", expires_in=timedelta(minutes=1))).url.startswith(
        "https://cdn.example.com/c/a?"
    )
    uploaded = await storage.signed_url("a", method="PUT", expires_in=timedelta(minutes=1))
    assert uploaded.url.startswith("https://x.blob.core.windows.net/c/a?")
    assert uploaded.headers == {"x-ms-blob-type": "BlockBlob"}
