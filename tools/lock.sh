#!/bin/sh
# Write the lock files: exact versions with hashes, for every Python from 3.11, on Linux and macOS alike.
# Usage: tools/lock.sh [--upgrade]
set -eu

compile() {
    .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --only-binary :all: \
        --generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links \
        --custom-compile-command "make lock" "$@" >/dev/null
}

# The build backend is in the lock too, because the project is installed without a download beside it.
echo hatchling | compile "$@" pyproject.toml - --extra embedded --extra service --extra images --output-file requirements.lock
# The packages that the benchmarks compare with are the choosiest, so the others follow them.
compile "$@" pyproject.toml --all-extras --constraint requirements.lock --output-file requirements-bench.lock
compile "$@" pyproject.toml --extra embedded --extra service --extra images --extra azure --extra s3 --extra otel \
    --extra azure-monitor --extra docs --extra dev \
    --constraint requirements-bench.lock --output-file requirements-dev.lock
# What the container image may hold: everything but the embedded servers, which production refuses, with all extras of
# which an image takes those that its build is told to.
echo hatchling | compile "$@" pyproject.toml - --extra service --extra images --extra azure --extra s3 --extra otel \
    --extra azure-monitor --constraint requirements-dev.lock --output-file requirements-service.lock
# What builds the site: it imports the library.
echo hatchling | compile "$@" pyproject.toml - --extra service --extra docs \
    --constraint requirements-dev.lock --output-file requirements-docs.lock
grep -c == requirements.lock requirements-service.lock requirements-docs.lock requirements-dev.lock requirements-bench.lock
