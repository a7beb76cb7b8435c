#!/bin/sh
# Puts passwords that lie in files into the addresses that need them, then becomes the command it is given: secrets then
# stand neither in the compose file nor in the image, and `docker inspect` doesn't show them.
set -eu
folder=${ENERGY_ML_SECRETS_DIR:-/run/secrets}

# In an address a password's letters other than these must be escaped.
quoted() { python3 -c 'import sys, urllib.parse; print(urllib.parse.quote(open(sys.argv[1]).read().strip(), safe=""))' "$1"; }

if [ -z "${ENERGY_ML_POSTGRES_URL:-}" ] && [ -r "$folder/postgres_password" ]; then
  host=${ENERGY_ML_POSTGRES_HOST:-postgres}
  export ENERGY_ML_POSTGRES_URL="postgresql+psycopg2://dagster:$(quoted "$folder/postgres_password")@$host:5432/dagster"
fi
if [ -r "$folder/redis_password" ]; then
  redis="redis://:$(quoted "$folder/redis_password")@${ENERGY_ML_REDIS_HOST:-redis}:6379"
  export ENERGY_ML_CELERY_BROKER="${ENERGY_ML_CELERY_BROKER:-$redis/0}"
  export ENERGY_ML_CELERY_BACKEND="${ENERGY_ML_CELERY_BACKEND:-$redis/1}"
fi
exec "$@"
