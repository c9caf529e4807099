"""The lines that the programs write to stderr."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from zapwatch.config import SettingsError, parse
from zapwatch.config.settings import BY_NAME
from zapwatch.server import FORMATTERS

_LEAST = {
    "WPP_GATEWAY_BASE_URL": "https://gateway.example.com:8443",
    "WPP_GATEWAY_SECRET": "x",
    "MESSAGE_LOG_URL": "none",
}


def _line(format_: str, message: str, *, fails: bool = False) -> str:
    error = None
    if fails:
        try:
            int(message)
        except ValueError:
            error = sys.exc_info()
    record = logging.LogRecord("exporter.b", logging.WARNING, "", 0, "%s", (message,), error)
    return FORMATTERS[format_]().format(record)


def test_logfmt_quotes_what_needs_it() -> None:
    line = _line("logfmt", 'a "b"=\\c\n\u2028é')
    assert line.partition(" ")[2] == (r'level=warning logger=exporter.b msg="a \"b\"=\\c\n\u2028é"')
    assert _line("logfmt", "é").endswith(" msg=é")
    assert _line("logfmt", "").endswith(' msg=""')


def test_json_is_one_object_a_line() -> None:
    event = json.loads(_line("json", 'a "b"\n'))
    assert {**event, "ts": ""} == {
        "ts": "",
        "level": "warning",
        "logger": "exporter.b",
        "msg": 'a "b"\n',
    }


@pytest.mark.parametrize("format_", FORMATTERS)
def test_an_event_with_a_traceback_is_one_line(format_: str) -> None:
    line = _line(format_, "one\r\ntwo\x0b\x85three", fails=True)
    assert len(line.splitlines()) == 1
    assert "ValueError" in line


def test_level_and_format_are_settings() -> None:
    settings = parse({**_LEAST, "LOG_LEVEL": "Debug", "LOG_FORMAT": "json"})
    assert (settings.log_level, settings.log_format) == ("debug", "json")
    with pytest.raises(SettingsError, match="LOG_LEVEL must be debug, info, warning or error, not"):
        parse({**_LEAST, "LOG_LEVEL": "loud"})
    with pytest.raises(SettingsError, match="LOG_FORMAT must be logfmt or json, not 'xml'"):
        parse({**_LEAST, "LOG_FORMAT": "xml"})


def test_each_format_has_a_formatter() -> None:
    for name in FORMATTERS:
        assert parse({**_LEAST, "LOG_FORMAT": name}).log_format == name
    assert BY_NAME["LOG_FORMAT"].default in FORMATTERS
