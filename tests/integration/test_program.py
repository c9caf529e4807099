"""How programs end, in processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reconnect_hook.metrics import HookMetrics
from tests.support.hooks import TOKEN, hook_settings
from tests.support.programs import Program, environment
from tests.support.waiting import wait_until
from zapwatch import server

_SECONDS = 60.0
_SIGNALLED_IN = {
    "a finalizer": """
class Signalled:
    def __del__(self):
        signal.raise_signal(number)
        time.sleep(0)
made = Signalled()
del made
""",
    "a weak reference's callback": """
class Made: pass
def signalled(_):
    signal.raise_signal(number)
    time.sleep(0)
made = Made()
kept = weakref.ref(made, signalled)
del made
""",
    "its work": "signal.raise_signal(number)",
}


def _run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment({}),
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )


@pytest.mark.parametrize(
    ("where", "name"), [*((where, "SIGTERM") for where in _SIGNALLED_IN), ("its work", "SIGINT")]
)
def test_a_signal_ends_it_wherever_it_comes(tmp_path: Path, where: str, name: str) -> None:
    program = (
        "import signal, time, weakref\n"
        "from zapwatch.server import end_on_signals, run\n"
        f"number = signal.{name}\n"
        "end_on_signals(3)\n"
        f"{_SIGNALLED_IN[where]}\n"
        "time.sleep(3600)\n"
    )
    done = _run(program, tmp_path)
    assert (done.returncode, done.stderr) == (3, "")


@pytest.mark.parametrize("arguments", [("exporter",), ("reconnect_hook", "serve")])
def test_a_hangup_while_it_starts_does_not_end_it(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    more = {"HOOK_EXTERNAL_URL": "https://example.com/zap", "EXPORTER_LISTEN": "127.0.0.1:0"}
    more |= {"MESSAGE_SOURCE": "events", "MESSAGES_TOKEN": TOKEN}
    settings = hook_settings("http://127.0.0.1:1", **more)
    with Program(tmp_path, *arguments, settings=settings) as program:
        status = Path(f"/proc/{program.process.pid}/status")

        def is_blocked() -> bool:
            blocked = status.read_text().partition("SigBlk:")[2].split()[0]
            return bool(int(blocked, 16) & 1 << signal.SIGHUP - 1)

        wait_until(is_blocked, _SECONDS, "the first lines of the program")
        program.process.send_signal(signal.SIGHUP)
        assert "settings were read again" not in program.stderr
        wait_until(lambda: "were read again" in program.stderr, _SECONDS, "the hangup's effect")
        assert program.get("/-/healthy").status_code == 200
        shown = 'whatsapp_page_info{url="https://example.com/zap"} 1.0'
        assert (shown in program.get("/metrics").text) == ("serve" in arguments)
        unsafe = "unsafe: HOOK_TOKEN and MESSAGES_TOKEN are the same: give each its own"
        assert unsafe in program.stderr


def test_a_thread_that_dies_is_told_and_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    monkeypatch.setattr(server, "_dead", names)
    server.start_thread("well", lambda: None).join(_SECONDS)
    assert server.dead_threads() == []
    server.start_thread("silence", lambda: sys.exit(1 // 0)).join(_SECONDS)
    assert server.dead_threads() == ["silence"]
    assert "the thread silence has died" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    dead = HookMetrics().registry.get_sample_value("whatsapp_reconnect_hook_dead_threads")
    assert dead == 1


def test_another_fault_in_a_finalizer_is_still_told(tmp_path: Path) -> None:
    program = (
        "from zapwatch.server import end_on_signals\n"
        "end_on_signals()\n"
        "class Faulty:\n"
        "    def __del__(self): 1 / 0\n"
        "Faulty()\n"
    )
    done = _run(program, tmp_path)
    assert done.returncode == 0
    assert "ZeroDivisionError" in done.stderr
