"""A Debian test machine with a real systemd: this machine's files under an overlay that takes all
changes, in namespaces that isolate its processes and ports.

It needs root, as the installation does; other users need sudo.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Self

from tests.support.waiting import TIMEOUT, wait_until

CHECKOUT = "/srv/zapwatch"
"""Path of the checkout on the machine: a writable copy."""

_BOOT = """
set -eu
machine=$1 checkout=$2
mount -t tmpfs tmpfs "$machine"
mkdir "$machine/changed" "$machine/work" "$machine/root" "$machine/changed2" "$machine/work2"
root=$machine/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$machine/changed,workdir=$machine/work" "$root"
mkdir -p "$root/srv/zapwatch"
mount -t overlay overlay \
    -o "lowerdir=$checkout,upperdir=$machine/changed2,workdir=$machine/work2" "$root/srv/zapwatch"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
ip link set lo up
# Not chroot: who is in one may not make the user namespaces that services ask for.
cd "$root"
mkdir outside
pivot_root . outside
cd /
umount --lazy /outside
exec env -i container=zapwatch PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --log-target=console --unit=basic.target
"""


class Machine:
    """The running machine; the end of its ``with`` block removes everything."""

    def __init__(self, folder: Path, checkout: Path) -> None:
        self._console = folder / "console"
        root = folder / "machine"
        root.mkdir()
        self._sudo = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
        namespaces = ("mount", "pid", "cgroup", "uts", "ipc", "net")
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(
                [
                    *self._sudo,
                    *("setpriv", "--pdeathsig", "KILL", "--"),  # ends it with the tests
                    "unshare",
                    *(f"--{name}" for name in namespaces),
                    "--fork",
                    "--kill-child",
                    *("sh", "-c", _BOOT, "boot", str(root), str(checkout)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )

    def run(self, script: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell script to its end, as root in the checkout's copy."""
        done = subprocess.run(
            self._command(script),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
        assert not check or done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done

    def read(self, path: str) -> bytes:
        return subprocess.run(
            self._command(f"cat {path}"), capture_output=True, check=True, timeout=TIMEOUT
        ).stdout

    def write(self, path: str, content: bytes) -> None:
        subprocess.run(self._command(f"cat >{path}"), input=content, check=True, timeout=TIMEOUT)

    def _command(self, script: str) -> list[str]:
        return [
            *self._sudo,
            *("nsenter", "--target", self._systemd(), "--all", "--root", "--wd"),
            *("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive"),
            *("sh", "-euc", f"cd {CHECKOUT}\n{script}"),
        ]

    def wait_for(self, script: str, what: str) -> str:
        """Wait until a script succeeds, and return its output."""

        last = ""

        def succeeds() -> subprocess.CompletedProcess[str] | None:
            nonlocal last
            done = self.run(script, check=False)
            last = done.stdout + done.stderr
            return None if done.returncode else done

        try:
            done = wait_until(succeeds, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{last}") from None
        assert done is not None
        return done.stdout

    def _systemd(self) -> str:
        """Return the outside pid of the process that has pid 1 inside."""
        pid = str(self._process.pid)
        for _ in [*self._sudo[:1], "unshare"]:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            assert children, self._console.read_text()
            pid = children[0]
        return pid

    def __enter__(self) -> Self:
        try:
            wait_until(self._is_up, "systemd to be up")
        except BaseException:
            self._end()
            raise
        return self

    def _is_up(self) -> bool:
        assert self._process.poll() is None, self._console.read_text()
        try:
            found = self.run("systemctl is-system-running", check=False).stdout.strip()
        except AssertionError:  # not forked yet
            return False
        return found in {"running", "degraded"}

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        # The end of pid 1 ends all other processes; the last one's end removes the mounts.
        if self._process.poll() is None:
            subprocess.run([*self._sudo, "kill", "-KILL", self._systemd()], check=True)
        self._process.wait()
