#!/bin/sh
# Gives each service's role the password of its secret; run once, by the image's own start.
set -eu
for role in access audit ingest analytics; do
  psql --username postgres --set=ON_ERROR_STOP=1 --set=role="$role" \
    --set=password="$(cat "/run/secrets/${role}_password")" <<'SQL'
ALTER ROLE :"role" PASSWORD :'password';
SQL
done
