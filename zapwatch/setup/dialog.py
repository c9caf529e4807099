"""Trials of the answers to ``zapwatch init``: gateway, messages, test message, heartbeat."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from zapwatch.alertmanager import (
    AlertmanagerApi,
    AlertmanagerError,
    Fate,
    deliveries_to_expect,
    is_own,
    send_test,
)
from zapwatch.channels import Channel, folded
from zapwatch.config.settings import Settings
from zapwatch.gateways.base import GatewayErrorKind
from zapwatch.gateways.registry import ADAPTERS, make_gateway
from zapwatch.http import HttpClient, HttpError, one_line
from zapwatch.messages.source import open_source
from zapwatch.setup.asking import translate as _

_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_HEARTBEAT_SECONDS = 10.0
_LOOK_SECONDS = 0.1
_HOUR = 3600.0
_INTEGRATION = re.compile(r"integration=\"?(\w+)")
_CALLED = re.compile(r'\b(Post|Get) "[^"]*": ')
_ERROR = re.compile(r'err="((?:[^"\\]|\\.)*)"')


def list_channels(settings: Settings) -> list[Channel]:
    """Return the gateway's channels, sorted; raise GatewayError."""
    gateway = make_gateway(settings.gateways[0], observe=lambda *_: None)
    return sorted(gateway.list_channels().channels, key=lambda channel: channel.key)


def hint(kind: str, reason: GatewayErrorKind) -> str:
    """Return the most likely reason why the channel list failed."""
    port = ADAPTERS[kind].usual_port
    return (
        {
            GatewayErrorKind.TIMEOUT: _("it hangs, or a firewall drops what is sent to this port."),
            GatewayErrorKind.CONNECTION: _(
                "nothing answers there. Is the port right, and does the gateway run?"
            ),
            GatewayErrorKind.TLS: _("the certificate. Is it https, and the host's own name?"),
            GatewayErrorKind.UNAUTHORIZED: _("the key is wrong. Copy it again, without blanks."),
            GatewayErrorKind.HTML: _("a web server answered, not the gateway. Is the port right?"),
            GatewayErrorKind.HTTP: _(
                "the gateway answered, but not with its list. Look at its log."
            ),
            GatewayErrorKind.INVALID: _(
                "the answer is no channel list. Is this the gateway's address?"
            ),
            GatewayErrorKind.LIMIT: _("the gateway takes no more requests for now."),
        }[reason]
        + " "
        + _("Its usual port:")
        + f" {port}"
    )


def count_recent(settings: Settings) -> int:
    """Count the channels with a logged message in the last hour; raise MessageLogError.

    Spellings of a name count as one channel.
    """
    source = open_source(settings, settings.gateways[0])
    if source is None:
        return 0
    try:
        return len({folded(name) for name in source.recent(_HOUR).ages})
    finally:
        source.close()


def try_heartbeat(url: str) -> str:
    """Call the address once; return the error, empty on success."""
    try:
        answer = HttpClient(url).request("GET", "", _HEARTBEAT_SECONDS)
    except HttpError as error:
        return one_line(error.detail)
    return "" if answer.is_success else f"HTTP {answer.status}"


def find_alertmanager() -> str | None:
    """Return the path of Alertmanager's executable, None if it is not installed."""
    found = (shutil.which(name) for name in ("prometheus-alertmanager", "alertmanager"))
    return next(filter(None, found), None)


def send_trial(
    program: str, config: Mapping[str, Any], address: Path, tell: Callable[[str], None]
) -> bool:
    """Send a test message through a temporary Alertmanager; return whether all was delivered.

    It runs for some seconds with the given configuration but without the hook, which need not run
    yet. Raises AlertmanagerError.
    """
    with tempfile.TemporaryDirectory(prefix="zapwatch-") as name:
        folder = Path(name)
        trial = _for_people_alone(config)
        trial["templates"] = [*trial["templates"][:-1], str(address)]
        file = folder / "alertmanager.yml"
        file.touch(mode=0o600)
        file.write_text(yaml.safe_dump(trial))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            at = f"127.0.0.1:{listener.getsockname()[1]}"
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - the program that find_alertmanager() found
                [
                    program,
                    f"--config.file={file}",
                    f"--storage.path={folder / 'data'}",
                    f"--web.listen-address={at}",
                    "--cluster.listen-address=",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ,
                start_new_session=True,
            )
        try:
            api = AlertmanagerApi(f"http://{at}")
            _wait_until_ready(api, process, log)
            fates = send_test(api, deliveries_to_expect(trial))
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for way, fate in fates.items():
            tell(f"✓ {way}: " + _("delivered") if fate is Fate.DELIVERED else f"✗ {way}")
        for line in _errors(log):
            tell(line)
        return set(fates.values()) == {Fate.DELIVERED}


def _for_people_alone(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration that routes everything to people, and nothing to the hook."""
    people = next(one for one in config["receivers"] if one["name"] == "people")
    receiver = {
        key: [one for one in entries if not is_own(one)] if key.endswith("_configs") else entries
        for key, entries in people.items()
    }
    return {
        "templates": list(config["templates"]),
        "route": {"receiver": "people", "group_by": ["test"], "group_wait": "0s"},
        "receivers": [receiver],
    }


def _wait_until_ready(api: AlertmanagerApi, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while True:
        if process.poll() is not None:
            said = one_line(log.read_text(errors="replace").strip().splitlines()[-1])
            raise AlertmanagerError(_("Alertmanager did not start:") + f" {said}")
        try:
            api.config(1.0)
        except AlertmanagerError:
            if time.monotonic() > until:
                raise
            time.sleep(_LOOK_SECONDS)
        else:
            return


def _errors(log: Path) -> list[str]:
    """Return Alertmanager's last error of each failed integration."""
    said = {}
    for line in log.read_text(errors="replace").splitlines():
        integration, error = _INTEGRATION.search(line), _ERROR.search(line)
        if error:
            name = integration[1] if integration else "alertmanager"
            # The address that was called may contain a secret.
            why = _CALLED.sub("", error[1].replace('\\"', '"'))
            said[name] = f"  {name}: {one_line(why)}"
    return list(said.values())
