"""The hook's log: one line an event, whatever is in it and whatever happens to the file."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import re
import threading
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reconnect_hook.event_log import EventLog, EventLogError, format_event
from zapwatch.server import logfmt

_AT = dt.datetime(2026, 2, 9, 8, 15, 2, tzinfo=dt.timezone(dt.timedelta(hours=-3)))
_TEXT = st.text(st.characters(), max_size=60)
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


def test_a_line_looks_as_it_is_promised() -> None:
    values: dict[str, object] = {
        "channel": "pixel12digital",
        "reason": "disconnected",
        "action": "getQr",
        "outcome": "reconnected",
        "attempt": 1,
        "seconds": "3.2",
        "detail": None,
    }
    assert format_event(_AT, values) == (
        "2026-02-09T08:15:02-03:00 [healthcheck-sessions] channel=pixel12digital "
        "reason=disconnected action=getQr outcome=reconnected attempt=1 seconds=3.2"
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("imobsites", "imobsites"),
        ("Pixel12 Digital", '"Pixel12 Digital"'),
        ("", '""'),
        ("a=b", '"a=b"'),
        ('say "hi"', r'"say \"hi\""'),
        ("back\\slash", r'"back\\slash"'),
        ("two\nlines\r", r'"two\nlines\r"'),
        ("\x1b[31m", r'"\u001b[31m"'),
        ("a\u2028b\x85ã", r'"a\u2028b\u0085ã"'),
        ("\u202egnp", r'"\u202egnp"'),
        ("ação", "ação"),
        ("\ud800", r'"\ud800"'),
    ],
)
def test_values_are_quoted_where_they_must_be(value: str, shown: str) -> None:
    assert logfmt(value) == shown


@given(_TEXT)
@example(_LINE_ENDS)
@example("x outcome=reconnected")
def test_no_input_makes_a_second_line_or_a_second_pair(value: str) -> None:
    line = format_event(_AT, {"channel": value, "outcome": "failed"})
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    line.encode()  # a file can hold it
    found = re.fullmatch(r'\S+ \S+ channel=("(?:[^"\\]|\\.)*"|[^\s"=]+) outcome=failed', line)
    assert found, line
    # It can be read back: the escapes are JSON's.
    assert (json.loads(found[1]) if found[1].startswith('"') else found[1]) == value


def test_it_makes_its_folder_and_appends(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "deep" / "healthcheck-sessions.log"
    for number in range(2):
        log = EventLog(path)
        log.write(channel="loja", attempt=number)
        lines = path.read_text().splitlines()
    assert [line.rpartition("]")[2] for line in lines] == [
        " channel=loja attempt=0",
        " channel=loja attempt=1",
    ]
    at = dt.datetime.fromisoformat(lines[0].partition(" ")[0])
    assert abs(dt.datetime.now(dt.UTC) - at) < dt.timedelta(minutes=10)


def test_nothing_is_written_until_something_happens(tmp_path: Path) -> None:
    EventLog(tmp_path / "log")
    assert (tmp_path / "log").read_text() == ""


def test_the_file_may_be_moved_at_any_time(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = EventLog(path)
    log.write(number=1)
    path.rename(tmp_path / "log.1")
    log.write(number=2)
    log.write(number=3)
    path.unlink()
    log.write(number=4)
    assert (tmp_path / "log.1").read_text().count("\n") == 1
    assert path.read_text().endswith("number=4\n")
    assert path.read_text().count("\n") == 1


def test_many_events_are_as_many_lines(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    log.write_all([{"number": number, "nothing": None} for number in range(3)])
    log.with_pairs(gateway="wpp").write_all([{"number": 3}])
    log.write_all([])
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.rpartition("] ")[2] for line in lines] == [
        "number=0",
        "number=1",
        "number=2",
        "number=3 gateway=wpp",
    ]


def test_many_threads_write_whole_lines(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    barrier = threading.Barrier(8)

    def write(number: int) -> None:
        barrier.wait()
        for _ in range(50):
            log.write(number=number, text="x" * 500)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 400
    assert all(line.endswith("x" * 500) for line in lines)


@pytest.mark.parametrize("path", ["file/log", "file/deep/log", "folder"])
def test_a_path_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("a regular file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(EventLogError) as caught:
        EventLog(tmp_path / path)
    assert str(caught.value).isprintable()


def test_what_cannot_be_written_goes_to_stderr_and_no_line_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "logs"
    log = EventLog(folder / "log")
    folder.joinpath("log").unlink()
    folder.rmdir()
    folder.write_text("a file in its place")
    for number in (2, 3):
        log.write(number=number)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert "number=2" in caplog.messages[0]
    assert "number=3" in caplog.messages[1]
    folder.unlink()
    log.write(number=4)
    assert (folder / "log").read_text().endswith("number=4\n")


def test_a_pipe_that_is_not_read_blocks_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(EventLogError, match="pipe: No such device or address"):
        EventLog(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = EventLog(path)
    log.write_all([{"number": number, "text": "x" * 500} for number in range(500)])
    piped = os.read(reader, 1 << 20).decode()
    os.close(reader)
    log.write(number=500)
    assert "Resource temporarily unavailable" in caplog.messages[0]
    assert "No such device or address" in caplog.messages[-1]
    assert piped.count("\n") + len(caplog.messages) == 501
