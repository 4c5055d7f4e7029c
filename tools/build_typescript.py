"""Build the TypeScript client into clients/typescript/dist."""

from __future__ import annotations

from clients.typescript import SOURCE, build

if __name__ == "__main__":
    build(SOURCE)
    print(f"Built {SOURCE / 'dist'}")
