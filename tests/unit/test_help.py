"""What --help says of each command: short, on any terminal, and true."""

from __future__ import annotations

import importlib
import re
import shlex
import signal
import sys
from collections.abc import Callable
from fnmatch import fnmatch

import pytest

import demo.__main__
import demo.simulator.__main__
import exporter.__main__
import reconnect_hook.__main__
import zapwatch.gateways.__main__
from zapwatch import __version__
from zapwatch.cli import COMMANDS, main
from zapwatch.config.settings import SETTINGS

_PROGRAMS: dict[str, Callable[[], int]] = {
    "exporter": exporter.__main__.main,
    "reconnect_hook": reconnect_hook.__main__.main,
    "zapwatch.gateways": zapwatch.gateways.__main__.main,
    "demo": demo.__main__.main,
    "demo.simulator": demo.simulator.__main__.main,
}
_COMMANDS = [
    *_PROGRAMS,
    "exporter explain",
    "reconnect_hook serve",
    "reconnect_hook check",
    "reconnect_hook probe",
    "reconnect_hook audit",
]


class Help:
    def __init__(self, command: str, text: str) -> None:
        self.command = command
        self.text = text

    def section(self, title: str) -> str:
        return self.text.partition(f"\n{title}:\n")[2].partition("\n\n")[0]

    @property
    def options(self) -> set[str]:
        return set(re.findall(r"(?<!\S)--[a-z-]+", self.section("options")))


Ask = Callable[[str], Help]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    monkeypatch.setenv("COLUMNS", "80")

    def asked(command: str) -> Help:
        program, *arguments = command.split()
        monkeypatch.setattr(sys, "argv", [program, *arguments, "--help"])
        with pytest.raises(SystemExit) as ended:
            _PROGRAMS[program]()
        assert ended.value.code == 0
        return Help(command, capsys.readouterr().out)

    return asked


@pytest.mark.parametrize("program", _PROGRAMS)
def test_every_command_is_looked_at(ask: Ask, program: str) -> None:
    named = re.findall(r"^    (\w+) ", ask(program).section("positional arguments"), re.MULTILINE)
    looked_at = [command.partition(" ") for command in _COMMANDS]
    assert named == [name for of, _, name in looked_at if of == program and name]


@pytest.mark.parametrize("command", _COMMANDS)
def test_it_fits_a_terminal_and_has_all_parts(ask: Ask, command: str) -> None:
    told = ask(command)
    lines = told.text.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 50
    assert lines[0].startswith(f"usage: python -m {command}")
    codes = re.findall(r"^  (\d)  \w", told.section("exit codes"), re.MULTILINE)
    assert codes in (["0", "2"], ["0", "1", "2"], ["0", "1", "2", "3"])
    assert told.section("settings")


@pytest.mark.parametrize("command", [one for one in _COMMANDS if "." not in one and one != "demo"])
def test_it_has_the_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    program, *arguments = command.split()
    monkeypatch.setattr(sys, "argv", [program, *arguments, "--version"])
    with pytest.raises(SystemExit) as ended:
        _PROGRAMS[program]()
    assert (ended.value.code, capsys.readouterr().out) == (0, f"zapwatch {__version__}\n")


def test_without_a_command_all_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["zapwatch"])
    monkeypatch.setattr(signal, "pthread_sigmask", lambda *_: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(f"\n  {name} " in shown for name in COMMANDS)
    monkeypatch.setattr(sys, "argv", ["zapwatch", "--env-file", "a.env", "check"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    refused = capsys.readouterr().err
    assert refused.endswith(
        "zapwatch: error: --env-file comes after the command: zapwatch COMMAND --env-file ...\n"
    )


@pytest.mark.parametrize("command", _COMMANDS)
def test_its_examples_are_of_this_command_and_have_its_options(ask: Ask, command: str) -> None:
    examples = ask(command).section("examples").splitlines()
    assert examples
    for example in examples:
        assert f"python -m {command}" in example
        shown = max((one for one in _COMMANDS if f"python -m {one}" in example), key=len)
        options = {word for word in shlex.split(example) if word.startswith("--")}
        assert options <= ask(shown).options


@pytest.mark.parametrize("command", [one for one in _COMMANDS if one != "demo.simulator"])
def test_its_settings_are_those_of_the_table(ask: Ask, command: str) -> None:
    known = {row.name for row in SETTINGS}
    for name in re.findall(r"[A-Z]+_[A-Z_]*\*?|[A-Z]{4,}\*", ask(command).section("settings")):
        assert any(fnmatch(one, name) for one in known), name


@pytest.mark.parametrize("name", COMMANDS)
def test_its_usage_is_of_the_command_that_was_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    module, first, _ = COMMANDS[name]
    monkeypatch.setattr(sys, "argv", ["/opt/zapwatch/.venv/bin/zapwatch"])
    for option in ("--help", "--no-such-option"):
        with pytest.raises(SystemExit):
            importlib.import_module(module).main([*first, option])
    shown, refused = capsys.readouterr()
    assert shown.startswith(f"usage: zapwatch {name} [")
    assert f"  zapwatch {name}" in shown
    assert refused.startswith(f"usage: zapwatch {name} [")
    assert f"\nzapwatch {name}: error: " in refused
    assert "python -m" not in shown + refused


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"init"}))
def test_a_files_name_is_escaped_in_an_error(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module, first, _ = COMMANDS[command]
    more = {"gateways": ["describe", "own"], "probe": ["loja"], "explain": ["loja"]}
    arguments = [*first, *more.get(command, ()), "--env-file", "a\n\x1bb"]
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(module).main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(": --env-file: there is no file a\\n\\x1bb\n")
