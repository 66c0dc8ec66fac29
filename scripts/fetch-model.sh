#!/bin/sh
# Prints the path of a checked GGUF file: fetch-model.sh NAME|PATH|URL [--yes] (names: scripts/models.tsv).
exec python3 "$(dirname "$0")/fetch.py" model "$@"
