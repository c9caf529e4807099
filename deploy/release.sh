#!/bin/sh
# Builds a release into dist/: sdist, wheel, bill of materials, and their checksums. The wheel comes from
# the sdist, and every command of it has to run in an empty virtual environment with the locked packages.
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "release: $1" >&2
    exit 1
}

top=$PWD
python=$top/.venv/bin/python
version=$("$python" -c 'import zapwatch; print(zapwatch.__version__)')
git diff --quiet HEAD || fail "there are changes that are not committed"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) # the same commit makes the same files
export SOURCE_DATE_EPOCH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

rm -rf dist
git archive --prefix=commit/ HEAD | tar -x -C "$work"
(cd "$work/commit" && "$python" -m hatchling build --target sdist --directory "$top/dist")
mkdir "$work/source"
tar -xzf "dist/zapwatch-$version.tar.gz" --strip-components=1 -C "$work/source"
(cd "$work/source" && "$python" -m hatchling build --target wheel --directory "$top/dist")
cp build/zapwatch.cdx.json "dist/zapwatch-$version.cdx.json"

"$python" -m venv "$work/empty"
pip() {
    "$work/empty/bin/python" -m pip --quiet --disable-pip-version-check --no-input "$@" ||
        fail "the lines above say what could not be installed (is there a network?)"
}
pip install --require-hashes -r requirements-run.lock
pip install --no-deps --no-index "dist/zapwatch-$version-py3-none-any.whl"
pip check
cd "$work"
commands=$(empty/bin/zapwatch --help | sed -n '/^commands:/,/^$/s/^  \([a-z]*\) .*/\1/p')
[ -n "$commands" ] || fail "zapwatch --help lists no commands"
for command in $commands; do
    [ "$(empty/bin/zapwatch "$command" --version)" = "zapwatch $version" ] || fail "zapwatch $command does not run"
done

cd "$top/dist"
sha256sum -- * >"$work/SHA256SUMS"
mv "$work/SHA256SUMS" .
cat SHA256SUMS
