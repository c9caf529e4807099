#!/bin/sh
# make-venv.sh [LOCK]: makes .venv with exactly what requirements.lock names, or
# requirements-run.lock, a quarter of it. Does nothing, and needs no network, when that has been done.
set -eu
cd "$(dirname "$0")/.."

lock=${1:-requirements.lock}
sum() { # pyproject.toml counts too: the project itself is installed from it.
    cat "$1" pyproject.toml | sha256sum | cut -d' ' -f1
}
wanted=$(sum "$lock")
made=$(cat .venv/locked 2>/dev/null || true)
if [ "$made" = "$wanted" ] || [ "$made" = "$(sum requirements.lock)" ]; then
    exit 0
fi

fail() {
    echo "setup: $1" >&2
    exit 1
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

python=
for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
    if is_new_enough "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    deploy/install-servers.sh python3 python3-venv
    python=python3
    is_new_enough "$python" || fail "Python 3.11 or newer is needed; install it, or name it: make setup PYTHON=/path/to/python"
fi
# Debian ships venv without pip unless python3-venv is installed.
"$python" -c 'import ensurepip, venv' 2>/dev/null || deploy/install-servers.sh python3-venv

echo "setup: making .venv with $("$python" --version); this takes a minute or two" >&2
rm -rf .venv
"$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock" ||
    fail "the locked packages could not be installed; the lines above say why (is there a network?)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e . ||
    fail "the project itself could not be installed into .venv; the lines above say why"
echo "$wanted" > .venv/locked
