"""Signed URLs of Amazon CloudFront ("Creating a signed URL using a canned policy")."""

from __future__ import annotations

import base64
from pathlib import Path
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from data_layer.errors import ConfigurationError
from data_layer.storage.port import SignedUrl
from data_layer.storage.signing.request import SigningRequest, quoted

_FOR_URLS = str.maketrans("+=/", "-_~")


class CloudFrontSigner:
    """Signs with the private half of a key pair whose public half CloudFront trusts."""

    def __init__(self, key_pair_id: str, private_key_file: Path) -> None:
        """Read the key.

        Raises:
            ConfigurationError: the file holds no RSA key that can be read without a password.
        """
        self._key_pair_id = key_pair_id
        try:
            key = load_pem_private_key(private_key_file.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigurationError(f"AWS_CLOUDFRONT_PRIVATE_KEY: {private_key_file} is not a private key") from error
        if not isinstance(key, RSAPrivateKey):
            raise ConfigurationError(f"AWS_CLOUDFRONT_PRIVATE_KEY: {private_key_file} is not an RSA key")
        self._key = key

    def sign(self, request: SigningRequest, *, base_url: str) -> SignedUrl:
        """A URL for reading that CloudFront accepts, for one address with exactly this query."""
        query = _response_headers(request)
        resource = f"{base_url}/{quoted(request.key)}{'?' if query else ''}{query}"
        expires = int(request.expires_at.timestamp())
        policy = (
            f'{{"Statement":[{{"Resource":"{resource}",'
            f'"Condition":{{"DateLessThan":{{"AWS:EpochTime":{expires}}}}}}}]}}'
        )
        # CloudFront verifies SHA-1 and nothing else.
        signature = self._key.sign(policy.encode(), PKCS1v15(), SHA1())  # noqa: S303
        text = base64.b64encode(signature).decode().translate(_FOR_URLS)
        parameters = f"Expires={expires}&Signature={text}&Key-Pair-Id={quote(self._key_pair_id)}"
        return SignedUrl(f"{resource}{'&' if query else '?'}{parameters}", request.method, {}, request.expires_at)


def _response_headers(request: SigningRequest) -> str:
    """Passed on to S3, where the distribution forwards them."""
    values = request.headers.response_parameters
    return "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in values.items())
