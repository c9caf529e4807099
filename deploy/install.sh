#!/bin/sh
# Installs Zapwatch on this machine, or brings it up to the version of this checkout: programs in
# /opt/zapwatch, settings in /etc/zapwatch, services for systemd. What the operator may have written
# there is never overwritten. See docs/install.md.
set -eu
cd "$(dirname "$0")/.."

umask 022 # the services must be able to read what is installed
# The machine's Python, not one in root's home, which the services could not run.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
prefix=/opt/zapwatch
settings=/etc/zapwatch
units=/usr/local/lib/systemd/system # what `systemctl edit` makes in /etc wins over these

fail() {
    echo "install: $1" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "this must be root: sudo make install"
command -v systemctl >/dev/null 2>&1 || fail "there is no systemd here; see docs/install.md for other ways"

# The programs. A virtual environment of another Python, as after an upgrade of Debian, is recreated.
wanted=$(sha256sum <requirements-run.lock)
"$prefix/bin/python" -c 'import pip' 2>/dev/null || {
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or newer is needed"
    python3 -c 'import ensurepip' 2>/dev/null || fail "please install: apt-get install python3-venv"
    rm -rf "$prefix"
    python3 -m venv "$prefix"
}
pip() {
    "$prefix/bin/python" -m pip --quiet --disable-pip-version-check --no-input "$@" ||
        fail "the lines above say what could not be installed (is there a network?)"
}
if [ "$(cat "$prefix/locked" 2>/dev/null || true)" != "$wanted" ]; then
    pip install --require-hashes -r requirements-run.lock
    echo "$wanted" >"$prefix/locked"
fi
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
"$prefix/bin/python" -m hatchling build --target wheel --directory "$built" >"$built/output" 2>&1 ||
    { cat "$built/output" >&2; fail "the wheel could not be built"; }
pip install --force-reinstall --no-deps --no-index "$built"/*.whl

# The user. It owns the state and the log, which systemd makes; the settings it may only read.
getent passwd zapwatch >/dev/null ||
    useradd --system --user-group --home-dir /var/lib/zapwatch --no-create-home \
        --shell /usr/sbin/nologin zapwatch
install -d "$settings"
give() { # MODE FILE: what comes in by stdin becomes that file, unless there is one
    [ ! -e "$2" ] || { cat >/dev/null; return 0; } # otherwise the writer would say "Broken pipe"
    install -m "$1" -o root -g zapwatch /dev/null "$2.new"
    cat >"$2.new"
    mv "$2.new" "$2"
}
python3 -c 'import secrets; print(secrets.token_hex(32))' | give 0640 "$settings/hook-token"
sed -e 's#^HOOK_TOKEN=.*#HOOK_TOKEN_FILE=/etc/zapwatch/hook-token#' \
    -e 's#^HOOK_STATE_URL=.*#HOOK_STATE_URL=sqlite:////var/lib/zapwatch/reconnect-hook.sqlite3#' \
    -e 's#^HOOK_LOG_FILE=.*#HOOK_LOG_FILE=/var/log/zapwatch/healthcheck-sessions.log#' \
    -e 's#^MESSAGES_STATE_URL=.*#MESSAGES_STATE_URL=sqlite:////var/lib/zapwatch-exporter/messages.sqlite3#' \
    -e 's#^SILENCE_STATE_FILE=.*#SILENCE_STATE_FILE=/var/lib/zapwatch-exporter/silence.json#' \
    -e '/^# 16 random characters/d' .env.example | give 0640 "$settings/zapwatch.env"
[ -e /etc/logrotate.d/zapwatch ] || install -m 0644 deploy/systemd/zapwatch.logrotate /etc/logrotate.d/zapwatch

# The services. They are started by hand the first time, when the settings are right.
install -d "$units"
install -m 0644 deploy/systemd/*.service "$units"
systemctl daemon-reload
systemctl try-restart zapwatch-exporter zapwatch-hook
echo "Zapwatch $("$prefix/bin/python" -m exporter --version | cut -d' ' -f2) is installed."
fill_in=
systemctl is-enabled --quiet zapwatch-hook || fill_in=yes
# Where a person is at the terminal and nothing was filled in yet, begin with the questions.
if [ "$fill_in" ] && [ -t 0 ] && [ -t 1 ] && grep -q '^WPP_GATEWAY_BASE_URL=https://gateway.example.com:8443$' "$settings/zapwatch.env"; then
    if "$prefix/bin/zapwatch" init --env-file "$settings/zapwatch.env"; then
        fill_in= # it has printed what comes next
    else
        echo "To go on: $prefix/bin/zapwatch init --env-file $settings/zapwatch.env"
    fi
fi

[ -z "$fill_in" ] ||
    echo "Now fill in $settings/zapwatch.env, then: systemctl enable --now zapwatch-exporter zapwatch-hook"
