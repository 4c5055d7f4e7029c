"""Folders, buckets and containers that are wrong in each way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_layer.testing.storage_servers import AzuriteServer, MotoServer, RcloneServer

from .support import Examine


def bucket_at(server: MotoServer | RcloneServer, name: str, **changed: str) -> dict[str, str]:
    return {
        "STORAGE_BACKEND": "s3",
        "AWS_S3_BUCKET": name,
        "AWS_ENDPOINT_URL": server.address,
        "AWS_ACCESS_KEY_ID": server.credentials.access_key_id,
        "AWS_SECRET_ACCESS_KEY": server.credentials.secret_access_key,
    } | changed


def test_a_private_bucket(examine: Examine, rclone_server: RcloneServer) -> None:
    rclone_server.make_bucket("doctor-private")
    report = examine(**bucket_at(rclone_server, "doctor-private"))
    assert set.union(*report.outcomes("storage").values()) == {"ok"}, report.outcomes("storage")
    assert "Contents" not in rclone_server.client.list_objects_v2(Bucket="doctor-private"), "the tiny file is gone"


def test_what_a_bucket_refuses(examine: Examine, rclone_server: RcloneServer) -> None:
    report = examine(**bucket_at(rclone_server, "doctor-no-such-bucket"))
    report.says("storage.login", "failed", "does not exist", "AWS_S3_BUCKET")
    assert report.of("storage.public")["caused_by"] == "storage.login"
    rclone_server.make_bucket("doctor-secret")
    wrong = bucket_at(rclone_server, "doctor-secret", AWS_SECRET_ACCESS_KEY="wrong-secret-wrong-secret")
    examine(**wrong).says("storage.login", "failed", "refused", "credentials are right")
    gone = bucket_at(rclone_server, "doctor-secret", AWS_ENDPOINT_URL="http://127.0.0.1:1")
    examine(**gone).says("storage.server", "failed", "nothing listens there", "AWS_ENDPOINT_URL")
    lost = bucket_at(rclone_server, "doctor-secret", AWS_ENDPOINT_URL="http://storage.invalid:9000")
    examine(**lost).says("storage.server", "failed", "cannot be resolved")


def test_a_bucket_that_everybody_reads(examine: Examine, moto_server: MotoServer) -> None:
    moto_server.make_bucket("doctor-public")
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": ["s3:GetObject", "s3:ListBucket"],
        "Resource": ["arn:aws:s3:::doctor-public", "arn:aws:s3:::doctor-public/*"],
    }
    moto_server.client.put_bucket_policy(
        Bucket="doctor-public", Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    )
    moto_server.client.put_bucket_acl(Bucket="doctor-public", ACL="public-read-write")
    moto_server.client.put_bucket_versioning(Bucket="doctor-public", VersioningConfiguration={"Status": "Enabled"})
    report = examine(**bucket_at(moto_server, "doctor-public"))
    report.says("storage.public", "failed", "everybody can", "doctor-public", "Block Public Access")
    report.says("storage.bucket", "failed", "let everybody read")
    report.says("storage.bucket", "warning", "old versions", "NoncurrentVersionExpiration")
    assert report.code == 1


@pytest.mark.parametrize("access", [None, "blob", "container"])
def test_a_container(access: str | None, examine: Examine, azurite_server: AzuriteServer) -> None:
    name = f"doctor-{access or 'private'}"
    azurite_server.client.create_container(name, public_access=access)
    report = examine(
        STORAGE_BACKEND="azure",
        AZURE_STORAGE_CONNECTION_STRING=azurite_server.connection_string,
        AZURE_STORAGE_CONTAINER_NAME=name,
    )
    outcome = report.of("storage.public")
    if access is None:
        assert set.union(*report.outcomes("storage").values()) == {"ok"}, report.findings
    else:
        assert outcome["outcome"] == "failed"
        assert ("list" in outcome["meaning"]) == (access == "container")
    assert list(azurite_server.client.get_container_client(name).list_blobs()) == []


def test_the_second_backend_is_looked_at_too(examine: Examine) -> None:
    report = examine(STORAGE_SECOND_BACKEND="s3", AWS_S3_BUCKET="bucket", AWS_ENDPOINT_URL="http://127.0.0.1:1")
    report.says("second_storage.server", "failed", "nothing listens there")
    assert report.of("storage.writes")["outcome"] == "ok"


def test_folders(examine: Examine, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    examine(LOCAL_STORAGE_PATH=str(folder)).says("storage.rights", "warning", "0755", f"chmod 700 {folder}")
    assert list(folder.iterdir()) == [], "nothing is left behind"
    (tmp_path / "file").touch()
    examine(LOCAL_STORAGE_PATH=str(tmp_path / "file")).says("storage.server", "failed", "is not a folder")
    # A folder in which nobody may make a file, not even root.
    examine(LOCAL_STORAGE_PATH="/proc/self").says("storage.writes", "failed", "no file can be written", "read-only")
    examine(LOCAL_STORAGE_PATH="/proc/self/none").says("storage.server", "failed", "cannot be made")


def test_a_file_system_that_forgets(examine: Examine) -> None:
    place = "/dev/shm"  # noqa: S108  (nothing is stored there)
    shared = examine(LOCAL_STORAGE_PATH=place, ENVIRONMENT="production")
    shared.says("storage.file_system", "warning", "tmpfs", "in memory")
    assert examine(LOCAL_STORAGE_PATH=place).of("storage.file_system")["outcome"] == "ok"
