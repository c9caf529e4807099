#!/bin/sh
# install-servers.sh PACKAGE...: installs the Debian packages that are missing, as root or with sudo.
# None of them is left running as a service: Zapwatch starts its own on its own ports.
set -eu

program_of() {
    case "$1" in
        prometheus-alertmanager) echo prometheus-alertmanager ;;
        mariadb-server) echo mariadbd ;;
        systemd) echo systemd-analyze ;;
        iproute2) echo ip ;;
        python3-venv) echo /nonexistent ;; # only asked for when it is known to be missing
        *) echo "$1" ;;
    esac
}

missing=
for package in "$@"; do
    PATH="$PATH:/usr/sbin" command -v "$(program_of "$package")" >/dev/null 2>&1 || missing="$missing $package"
done
[ -z "$missing" ] && exit 0

fail() {
    echo "setup: $1" >&2
    exit 1
}

command -v apt-get >/dev/null 2>&1 || fail "please install:$missing (no apt-get here), then run this again"
if [ "$(id -u)" = 0 ]; then
    sudo=
elif command -v sudo >/dev/null 2>&1; then
    sudo=sudo
else
    fail "please install as root:$missing (apt-get install$missing), then run this again"
fi

echo "setup: installing$missing" >&2
# policy-rc.d is Debian's own switch against starting services while installing.
policy=/usr/sbin/policy-rc.d
made_policy=
undo() {
    [ -z "$made_policy" ] || $sudo rm -f "$policy"
}
trap undo EXIT
trap 'exit 130' INT TERM
if [ ! -e "$policy" ]; then
    made_policy=yes
    printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
    $sudo chmod 755 "$policy"
fi
install() {
    # shellcheck disable=SC2086 # $missing is a list of words
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
}
log=$(mktemp)
if ! install >"$log" 2>&1 && ! { $sudo apt-get update -qq && install; } >>"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    fail "could not install:$missing; the lines above are from apt-get"
fi
rm -f "$log"
# Without a running systemd there is nothing to switch off.
if [ -d /run/systemd/system ]; then
    for package in $missing; do
        case "$package" in
            prometheus | prometheus-alertmanager | mariadb-server | nginx)
                $sudo systemctl disable --quiet "${package%-server}.service" 2>/dev/null || true ;;
        esac
    done
fi
