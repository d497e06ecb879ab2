#!/bin/sh
# Install the libraries of the named extras, pinned; from /wheels alone when there are any.
set -eu
python requirements.py "$@" > /tmp/requirements.txt
set -- --constraint constraints.txt --requirement /tmp/requirements.txt setuptools
if ls /wheels/*.whl >/dev/null 2>&1; then
  set -- --no-index --find-links /wheels "$@"
fi
# pip leaves the compiled modules, which a read-only root would make anew in every process.
pip install "$@"
