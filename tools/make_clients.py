"""Write what is made from the routes of the service: docs/reference/openapi.json and the clients."""

from __future__ import annotations

import asyncio

from clients import description, python


def main() -> None:
    """Write all of it."""
    document = asyncio.run(description.describe_service())
    description.write(document)
    python.write(document)


if __name__ == "__main__":
    main()
