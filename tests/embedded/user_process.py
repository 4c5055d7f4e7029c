"""A process that uses embedded servers: says so in one line of JSON, and leaves when its standard input ends.

Arguments come by environment variables, so that the folder is on the command line of the servers and the guardian only.
"""

import asyncio
import json
import os
import sys
from contextlib import suppress
from pathlib import Path

from data_layer.embedded import EmbeddedServers
from data_layer.errors import EmbeddedServerError


def say(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


async def end_of_input() -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    await ended.wait()


async def main() -> None:
    wanted = os.environ["EMBEDDED_SERVERS"].split()
    servers = EmbeddedServers(
        Path(os.environ["EMBEDDED_FOLDER"]),
        postgresql="postgresql" in wanted,
        valkey="valkey" in wanted,
        database_name="postgres",
    )
    try:
        addresses = await servers.start(exclusive="exclusive" in wanted)
    except EmbeddedServerError as error:
        say(error=str(error), code=error.code)
        sys.exit(3)
    try:
        say(database_url=addresses.database_url, redis_url=addresses.redis_url)
        await end_of_input()
    finally:
        await servers.stop()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
