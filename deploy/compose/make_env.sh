#!/bin/sh
# Write .env, beside compose.yaml: a random secret for each that is needed. One that exists stays as it is.
set -eu

file=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)/.env
if [ -e "$file" ]; then
    echo "$file exists; nothing was changed"
    exit 0
fi
umask 077
for name in POSTGRES_PASSWORD OWNER_PASSWORD SERVICE_PASSWORD REDIS_PASSWORD SESSION_SECRET JWT_SECRET \
    STORAGE_SIGNING_SECRET S3_SECRET_ACCESS_KEY SAAS_API_SECRET; do
    printf '%s=%s\n' "$name" "$(openssl rand -hex 32)"
done >"$file.new"
# Complete or not there: half a file would be taken for one that exists.
mv "$file.new" "$file"
echo "Wrote $file. Keep it: the database in the volume knows these passwords, and files are signed with these secrets."
