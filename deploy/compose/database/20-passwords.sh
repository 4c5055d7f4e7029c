#!/bin/sh
# Gives the roles of 10-roles.sql their passwords. The image of PostgreSQL runs both once, when the volume is empty.
set -eu

# psql itself quotes them, and they are no arguments, which everybody on the machine could read.
psql --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" <<'SQL'
\getenv owner_password OWNER_PASSWORD
\getenv service_password SERVICE_PASSWORD
ALTER ROLE data_layer_owner PASSWORD :'owner_password';
ALTER ROLE data_layer_service PASSWORD :'service_password';
SQL
