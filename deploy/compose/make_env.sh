#!/bin/sh
# Write .env, beside compose.yaml: a random secret for each that is needed. What stands there already stays as it is.
set -eu

file=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)/.env
umask 077
: >"$file.new"
if [ -e "$file" ]; then
    cat "$file" >"$file.new"
    # A last line without its end would become one with the first that is added.
    [ -z "$(tail -c 1 "$file")" ] || echo >>"$file.new"
fi
added=""
for name in POSTGRES_PASSWORD OWNER_PASSWORD SERVICE_PASSWORD REDIS_PASSWORD SESSION_SECRET JWT_SECRET \
    STORAGE_SIGNING_SECRET S3_SECRET_ACCESS_KEY SAAS_API_SECRET; do
    grep -q "^$name=." "$file.new" && continue
    printf '%s=%s\n' "$name" "$(openssl rand -hex 32)" >>"$file.new"
    added="$added $name"
done
if [ -z "$added" ]; then
    rm "$file.new"
    echo "$file has all of them; nothing was changed"
    exit 0
fi
# Complete or not there: half a file would be taken for one that exists.
mv "$file.new" "$file"
echo "Wrote to $file:$added. Keep it: the database in the volume knows these passwords, and files are signed with these secrets."
