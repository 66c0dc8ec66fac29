#!/bin/sh
# Prints the folder of the reference vocabularies and chat templates that the tests compare with; fetches it once.
exec python3 "$(dirname "$0")/fetch.py" vectors
