"""A real SFTP server of a folder, with one user. Run as a module, it serves until it is ended."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from support.served_folders import ServedFolder, python_server

USER, PASSWORD = "modelcloud", "s3cret-sftp-password"


def sftp_folder(folder: Path) -> ServedFolder:
    """A folder that is served by SFTP; its key and who may sign in are in files beside it."""
    import asyncssh

    key = asyncssh.generate_private_key("ssh-ed25519")
    key_file, known, options = (folder.with_name(name) for name in ("key", "known", "options.json"))
    key.write_private_key(str(key_file))
    served = python_server(folder, "sftp_server", key_file)
    known.write_text(f"[127.0.0.1]:{served.port} {key.export_public_key().decode()}")
    options.write_text(f'{{"password": "{PASSWORD}", "known_hosts": "{known}"}}')
    served.source = [
        "--type", "sftp", "--remote_path", f"sftp://{USER}@127.0.0.1:{served.port}/",
        "--storage_options_file", str(options),
    ]  # fmt: skip
    return served


class Uploads:
    """That folder, from the side of who uploads to it."""

    def __init__(self, port: int) -> None:
        self._port = port

    def put(self, name: str, data: bytes) -> None:
        """Write a file over what is there, as the protocol does: in place."""
        asyncio.run(self._put(name, data))

    async def _put(self, name: str, data: bytes) -> None:
        import asyncssh

        async with (
            asyncssh.connect(
                "127.0.0.1", self._port, username=USER, password=PASSWORD, known_hosts=None
            ) as connection,
            connection.start_sftp_client() as client,
        ):
            await client.makedirs(str(Path(name).parent), exist_ok=True)
            async with client.open(name, "wb") as file:
                await file.write(data)


async def main(port: str, folder: str, key: str) -> None:
    """Serve."""
    import asyncssh

    class Doorkeeper(asyncssh.SSHServer):
        def begin_auth(self, _username: str) -> bool:
            return True

        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == (USER, PASSWORD)

    def files(channel: asyncssh.SSHServerChannel[bytes]) -> asyncssh.SFTPServer:
        return asyncssh.SFTPServer(channel, chroot=folder.encode())

    await asyncssh.create_server(
        Doorkeeper, "127.0.0.1", int(port), server_host_keys=[key], sftp_factory=files
    )
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
