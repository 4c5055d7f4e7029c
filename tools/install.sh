#!/bin/sh
# Install what a lock file names, and the project itself, into .venv; make .venv where it is missing or broken.
# Usage: PYTHON=/path/to/python tools/install.sh requirements.lock
set -eu

lock=$1
environment=.venv
known_to_work="python3 python3.13 python3.12 python3.11"

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    for candidate in ${PYTHON:-$known_to_work}; do
        if is_new_enough "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail "Python 3.11 or later is needed; found: $("${PYTHON:-python3}" --version 2>/dev/null || echo none)" \
        "Install it, or name one: make run PYTHON=/path/to/python3"
}

create_environment() {
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' 2>/dev/null || fail \
        "$python cannot create virtual environments: its modules venv and ensurepip are missing." \
        "On Debian and Ubuntu: apt install python3-venv"
    echo "Creating $environment with $("$python" --version) ..."
    "$python" -m venv --clear "$environment"
}

if ! is_new_enough "$environment/bin/python" || ! "$environment/bin/python" -c 'import pip' 2>/dev/null; then
    create_environment
fi

echo "Installing $(grep -c '==' "$lock") packages of $lock ..."
# A lock is complete, so nothing is left to resolve; wheels only, so nothing is built on this machine. Python compiles
# the modules that are imported, which are far fewer than all.
"$environment/bin/python" -m pip install --no-compile --disable-pip-version-check --no-input \
    --require-hashes --no-deps --only-binary :all: --requirement "$lock"
"$environment/bin/python" -m pip install --disable-pip-version-check --no-input --quiet \
    --no-deps --no-build-isolation --editable .
