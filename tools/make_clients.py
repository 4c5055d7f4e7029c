"""Write what is made from the routes of the service: docs/reference/openapi.json."""

from __future__ import annotations

import asyncio

from clients.description import describe_service, write


def main() -> None:
    """Write it."""
    write(asyncio.run(describe_service()))


if __name__ == "__main__":
    main()
