"""A real server of the S3 protocol (moto), in this process."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterator
from typing import Any

from support.served_folders import free_port

KEY, SECRET = "AKIDMODELCLOUD", "s3cret-s3-key"
#: The server keeps what is in a bucket for as long as its process lives.
_numbers = itertools.count(1)


class Bucket:
    """One bucket.

    Attributes:
        source: arguments of a monitor that watches the folder `m` in it.
        env: what it needs in its environment.
    """

    def __init__(self, address: str) -> None:
        import boto3  # type: ignore[import-untyped]

        self._client: Any = boto3.client(
            "s3", endpoint_url=address, aws_access_key_id=KEY, aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )  # fmt: skip
        self._bucket = f"models-{next(_numbers)}"
        self._client.create_bucket(Bucket=self._bucket)
        self.source = [
            "--type", "s3", "--remote_path", f"{self._bucket}/m",
            "--storage_option", f"endpoint_url={address}",
        ]  # fmt: skip
        self.env = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}

    def put(self, name: str, data: bytes) -> None:
        """Write an object over what is there."""
        self._client.put_object(Bucket=self._bucket, Key=f"m/{name}", Body=data)


@contextlib.contextmanager
def s3_bucket() -> Iterator[Bucket]:
    """A server with an empty bucket."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    port = free_port()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    try:
        yield Bucket(f"http://127.0.0.1:{port}")
    finally:
        server.stop()
