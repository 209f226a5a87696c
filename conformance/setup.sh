#!/usr/bin/env bash
# Makes the virtual environment that holds trio, in the folder that is given; does nothing if it is there already.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
venv="$1"

if cmp -s "$here/requirements.txt" "$venv/installed.txt"; then
    exit 0
fi
rm -rf "$venv"
if ! python3 -m venv "$venv" >/dev/null 2>&1; then
    # Debian splits `venv` from Python.
    rm -rf "$venv"
    apt-get update -q
    apt-get install -q -y python3 python3-venv
    python3 -m venv "$venv"
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
# Last, so that a half-made environment is made anew.
cp "$here/requirements.txt" "$venv/installed.txt"
