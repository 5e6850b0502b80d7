#!/bin/sh
# Makes deploy/secrets/: a random password a role, and the pgpass file that its service reads. Keeps what is there.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
[ -e secrets/postgres ] || random > secrets/postgres
for role in access audit ingest analytics; do
  [ -e "secrets/${role}_password" ] || random > "secrets/${role}_password"
  printf 'postgres:5432:%s:%s:%s\n' "$role" "$role" "$(cat "secrets/${role}_password")" > "secrets/${role}_pgpass"
done
