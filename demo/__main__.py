"""``python -m demo``: the whole loop in the foreground, with a simulated gateway or a real one."""

from __future__ import annotations

import argparse
import fcntl
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from demo.configuration import ALERTMANAGER, Addresses, free_or_other
from demo.loop import ChildError, Children, Loop, MissingProgramError, answers
from demo.simulator.client import Simulator
from demo.story import ASK_SECONDS, SILENT_SECONDS, Events, Story, make_channels
from zapwatch.cli import WRONG_USAGE, manual, parser
from zapwatch.config import Listen, Settings, SettingsError, collect, load
from zapwatch.server import end_on_signals, fail
from zapwatch.setup.command import main as init
from zapwatch.setup.command import wants_demonstration
from zapwatch.setup.dialog import has_terminal

_PROGRAM = "demo"
_VAR = Path("var")
_DEMONSTRATION = _VAR / "demo"  # deleted at each start
_REAL = _VAR / "run"
_PAUSE = 0.5
# The heartbeat's alert fires while everything works.
_ALERTS_OF_AN_HOUR = quote('last_over_time(ALERTS{alertstate="firing",alertname!="Watchdog"}[1h])')
_FIRING = quote('alertname!="Watchdog"')
_LOCAL = "127.0.0.1"


def main(arguments: list[str] | None = None) -> int:
    """Run until Ctrl-C; return the exit code."""
    options = _parser().parse_args(arguments)
    end_on_signals()
    try:
        with _only_one():
            if not _is_configured(options.env_file, options.pixelhub_env) and has_terminal():
                _set_up(options.env_file)
            if _is_configured(options.env_file, options.pixelhub_env):
                _run_real(options.env_file, options.pixelhub_env)
            else:
                _run_story()
    except (SettingsError, MissingProgramError) as error:
        fail(_PROGRAM, str(error))
    except (ChildError, TimeoutError) as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        return error.code if isinstance(error, ChildError) and error.code > 0 else 1
    return 0


def _parser() -> argparse.ArgumentParser:
    return parser(
        "python -m demo",
        manual(
            "Runs exporter, reconnect hook, Prometheus and Alertmanager on this machine until "
            "Ctrl-C. Where neither WPP_GATEWAY_BASE_URL nor GATEWAYS_FILE is set, a simulated "
            "gateway demonstrates failures and repairs.",
            settings="those of exporter and hook; HOOK_TOKEN is created if it is not set",
            exit_codes={
                0: "stopped by a signal",
                1: "a program did not start or has ended; its own exit code, if it has one",
                2: f"{WRONG_USAGE}, a missing program, or another run in this folder",
            },
            examples=["python -m demo", "python -m demo --pixelhub-env /path/to/pixelhub/.env"],
        ),
    )


def _is_configured(env_file: str | None, pixelhub_env: str | None) -> bool:
    values = collect(env_file, pixelhub_env=pixelhub_env).values
    return any(values.get(name) for name in ("WPP_GATEWAY_BASE_URL", "GATEWAYS_FILE"))


def _set_up(env_file: str | None) -> None:
    """Run the setup dialog, unless the user chooses the demonstration."""
    if wants_demonstration():
        return
    code = init(["--env-file", env_file] if env_file else [], runs_next=True)
    if code:
        raise SystemExit(code)


@contextmanager
def _only_one() -> Iterator[None]:
    """Prevent a second run in this folder: it would share the first one's data."""
    try:
        _VAR.mkdir(exist_ok=True)
        with (_VAR / "demo.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                fail(_PROGRAM, f"another one runs in {Path.cwd()}: stop it first")
            yield
    except PermissionError as error:
        fail(_PROGRAM, f"{error.filename} cannot be written: run this where you may write")


def _run_real(env_file: str | None, pixelhub_env: str | None) -> None:
    settings = load(env_file, pixelhub_env=pixelhub_env)
    folder = _REAL
    folder.mkdir(parents=True, exist_ok=True)
    token = settings.hook_token or _kept_token(folder / "hook-token")
    env = {**os.environ, **({"PIXELHUB_ENV": pixelhub_env} if pixelhub_env else {})}
    at = _addresses(settings)
    file = Path(settings.alertmanager_file) if settings.alertmanager_file else None
    if file is not None and at.hook != settings.hook_listen:
        fail(
            _PROGRAM,
            f"{settings.hook_listen} is in use, and {file} sends the alerts there: stop what "
            "listens there, or choose another HOOK_LISTEN and correct that file",
        )
    alertmanager = file or ALERTMANAGER
    with Loop(folder, at, env, token, env_file, alertmanager=alertmanager) as loop:
        loop.wait_until_ready()
        print(f"watching {', '.join(g.base_url for g in settings.gateways)}", flush=True)
        _print_urls(
            loop,
            settings,
            "HOOK_TOKEN in the settings" if settings.hook_token else f"in {folder}/hook-token",
        )
        read = file or loop.folder / "alertmanager.yml"
        print(f"  {'alertmanager':13}  reads {read}", flush=True)
        _follow(loop, _events(loop, settings))


def _run_story() -> None:
    folder = _DEMONSTRATION
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    simulator_at = free_or_other(Listen(_LOCAL, 0))
    secret, token = secrets.token_hex(16), secrets.token_hex(16)
    log_url = f"sqlite:///{folder.resolve() / 'message-log.sqlite3'}"
    env = {
        **os.environ,
        "WPP_GATEWAY_BASE_URL": f"http://{simulator_at}",
        "WPP_GATEWAY_SECRET": secret,
        "MESSAGE_LOG_URL": log_url,
        "SILENT_HOURS": str(SILENT_SECONDS / 3600),
        "EXPORTER_POLL_SECONDS": "2",
        "HOOK_STATE_URL": f"sqlite:///{folder.resolve() / 'reconnect-hook.sqlite3'}",
        # Simulated repairs do not belong in the log of real ones.
        "HOOK_LOG_FILE": str(folder / "healthcheck-sessions.log"),
    }
    # A .env without a gateway must not change the story.
    settings = load(os.devnull, env)
    print("No WPP_GATEWAY_BASE_URL is set: this is a demonstration with a simulated gateway.")
    print(
        f"Starting (here a channel counts as silent after {SILENT_SECONDS:g} s, and two are probed "
        f"after {ASK_SECONDS:g} s) ...",
        flush=True,
    )
    simulator_process = Children(folder)
    command = [sys.executable, "-m", "demo.simulator", "--listen", str(simulator_at)]
    try:
        simulator_process.start(
            "simulator",
            [*command, "--message-log", log_url, "--traffic-seconds", "3"],
            {**env, "SIMULATOR_SECRET": secret},
        )
        simulator = Simulator(f"http://{simulator_at}")
        while not answers(f"http://{simulator_at}/sim/state"):
            simulator_process.check()
            time.sleep(_PAUSE / 5)
        env |= make_channels(simulator)
        with Loop(folder, _addresses(settings), env, token, os.devnull) as loop:
            loop.wait_until_ready()
            _print_urls(loop, settings, token)
            print(f"  simulator      http://{simulator_at}/sim/state", flush=True)

            def check() -> None:
                simulator_process.check()
                loop.children.check()

            events = _events(loop, settings)
            story = Story(simulator, events, f"http://{loop.at.prometheus}", check)
            story.prepare()
            print("\nAll channels are well. Now three fail, and one goes quiet:\n", flush=True)
            story.play()
            print(f"\n{story.table()}\n\nEverything stays up until Ctrl-C.", flush=True)
            _follow(loop, events)
    finally:
        simulator_process.stop()


def _addresses(settings: Settings) -> Addresses:
    wanted = Addresses(
        exporter=settings.exporter_listen,
        hook=settings.hook_listen,
        prometheus=Listen(_LOCAL, 9090),
        alertmanager=Listen(_LOCAL, 9093),
    )
    for name in ("exporter", "hook", "prometheus", "alertmanager"):
        address: Listen = getattr(wanted, name)
        free = free_or_other(address)
        if free != address:
            print(f"{address} is in use, so {name} listens on {free}")
            wanted = replace(wanted, **{name: free})
    return wanted


def _kept_token(path: Path) -> str:
    """Return the token of the last run, or a new one; Loop writes it to that file."""
    try:
        kept = path.read_text().strip()
    except OSError:
        kept = ""
    return kept or secrets.token_hex(16)


def _events(loop: Loop, settings: Settings) -> Events:
    return Events(f"http://{loop.at.alertmanager}", settings.hook_log_file)


def _print_urls(loop: Loop, settings: Settings, token: str) -> None:
    """Print all URLs and paths; ``token`` is the page's password, or where to find it."""
    for name, url in (
        ("page", f"http://{loop.at.hook}/  (password: {token})"),
        ("metrics", f"http://{loop.at.exporter}/metrics"),
        ("hook", f"http://{loop.at.hook}/metrics"),
        # The APIs, since Debian's packages lack the web pages.
        ("firing alerts", f"http://{loop.at.alertmanager}/api/v2/alerts?filter={_FIRING}"),
        ("alerts, 1 h", f"http://{loop.at.prometheus}/api/v1/query?query={_ALERTS_OF_AN_HOUR}"),
    ):
        print(f"  {name:13}  {url}")
    print(f"  {'log':13}  {settings.hook_log_file}")
    print(f"  {'output':13}  {loop.folder}/*.log", flush=True)


def _follow(loop: Loop, events: Events) -> None:
    """Print events until a signal arrives or a program ends."""
    while True:
        loop.children.check()
        for event in events.new(time.time()):
            when = time.strftime("%H:%M:%S")
            # The log line without its time and program.
            repair = event.line.partition("] ")[2]
            # An alert also ends when the channel's state becomes unknown.
            ends = "fires" if event.kind == "fires" else "no longer fires"
            text = repair if event.kind == "repair" else f"{event.what} {ends}"
            print(f"{when}  {event.channel:16}  {text}", flush=True)
        time.sleep(_PAUSE)


if __name__ == "__main__":
    sys.exit(main())
