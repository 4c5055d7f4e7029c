"""Where a bucket of S3 is, and how it is reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from data_layer.storage.signing.s3 import S3Credentials

Encryption = Literal["none", "sse-s3", "sse-kms"]
ALGORITHMS = {"sse-s3": "AES256", "sse-kms": "aws:kms"}
"""What S3 calls them."""


@dataclass(frozen=True, slots=True)
class S3Location:
    """Where a bucket is, and how it is reached.

    Attributes:
        bucket: Its name.
        region: Its region.
        endpoint: The address of a server that resembles S3; None: Amazon's.
        credentials: None: those of the machine or pod (instance role, web identity, container credentials).
        encryption: What the server is asked to encrypt with; ``none``: whatever the bucket does by itself.
        kms_key_id: The key for ``sse-kms``; None: the account's own.
        public_endpoint: The address under which clients reach the server, behind a proxy or from outside of a network
            of containers; None: ``endpoint``. URLs for clients are made with it, and nothing is sent there by us.
    """

    bucket: str
    region: str = "us-east-1"
    endpoint: str | None = None
    credentials: S3Credentials | None = None
    encryption: Encryption = "none"
    kms_key_id: str | None = None
    public_endpoint: str | None = None

    @property
    def url(self) -> str:
        """The address of the bucket, without a slash at its end."""
        if self.endpoint is not None:
            return f"{self.endpoint.rstrip('/')}/{self.bucket}"
        if self.has_own_host:
            return f"https://{self.bucket}.s3.{self.region}.amazonaws.com"
        return f"https://s3.{self.region}.amazonaws.com/{self.bucket}"

    @property
    def public_url(self) -> str:
        """The address of the bucket for clients, without a slash at its end."""
        if self.public_endpoint is None:
            return self.url
        return f"{self.public_endpoint.rstrip('/')}/{self.bucket}"

    @property
    def has_own_host(self) -> bool:
        """Whether the bucket's name is part of the host's: not with a dot in it, which certificates do not cover."""
        return self.endpoint is None and "." not in self.bucket

    @property
    def encryption_headers(self) -> dict[str, str]:
        """What a request to store a file says about encryption."""
        if self.encryption == "none":
            return {}
        headers = {"x-amz-server-side-encryption": ALGORITHMS[self.encryption]}
        if self.kms_key_id is not None:
            headers["x-amz-server-side-encryption-aws-kms-key-id"] = self.kms_key_id
        return headers
