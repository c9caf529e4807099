"""What the panels about probes show, by promtool on the queries of the shipped files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from tests.support.dashboards import dashboards, queries
from tests.support.shipped import run

_BOTH = pytest.mark.parametrize("title", [dashboard["title"] for dashboard in dashboards()])
_MINE = 'gateway="wpp",channel="loja",kind="echo"'
_LABELS = '{gateway="wpp",channel="loja"}'
_Wanted = Mapping[int, Sequence[tuple[str, float]]]

_ANSWER, _AGE, _PROOF = range(3)
_ASKED = {
    "Zapwatch: all channels": ("Last probes", ("Answer", "Asked", "Proved")),
    "Zapwatch: one channel": ("Last probe", ("A", "B", "C")),
}


def _expression(where: str) -> str:
    (query,) = (q for d in dashboards() for q in queries(d) if q.where == where)
    values = {"gateway": "wpp", "channel": "loja", "__interval": "1m", "__range": "1h"}
    return query.filled(values)


def _asked(title: str, what: int) -> str:
    panel, letters = _ASKED[title]
    return _expression(f"{title} / {panel} / {letters[what]}")


def _check(folder: Path, series: dict[str, str], expression: str, wanted: _Wanted) -> None:
    """Let promtool evaluate a query of these series, a value a minute, at some minutes."""
    tests = [
        {
            "expr": expression,
            "eval_time": f"{minute}m",
            "exp_samples": [{"labels": labels, "value": value} for labels, value in samples],
        }
        for minute, samples in wanted.items()
    ]
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    case = {"interval": "1m", "input_series": inputs, "promql_expr_test": tests}
    file = folder / "panel.yml"
    file.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [case]}))
    run("promtool", "test", "rules", str(file))


@_BOTH
def test_each_probe_is_counted_once_the_first_of_a_kind_and_after_a_restart_too(
    title: str, tmp_path: Path
) -> None:
    total = f'whatsapp_channel_probes_total{{{_MINE},outcome="%s",instance="%s"}}'
    series = {
        total % ("passed", "one"): "_ _ 1 1 2 2 stale 1 1",
        total % ("passed", "two"): "0 0 0 0 1 1 1 1 1",
        total % ("failed", "one"): "_ _ _ _ _ 1 stale _ _",
    }
    passed = '{kind="echo",outcome="passed"}'
    failed = '{kind="echo",outcome="failed"}'
    wanted = {
        1: [(passed, 0)],
        2: [(passed, 1)],
        3: [(passed, 0)],
        4: [(passed, 2)],
        5: [(passed, 0), (failed, 1)],
        7: [(passed, 1)],
        8: [(passed, 0)],
    }
    _check(tmp_path, series, _expression(f"{title} / Probes / A"), wanted)


@_BOTH
def test_after_a_probe_that_proved_nothing_the_last_proof_is_still_known(
    title: str, tmp_path: Path
) -> None:
    series = {
        f"whatsapp_channel_probe_success{{{_MINE}}}": "1x9 0x20",
        f"whatsapp_channel_probe_timestamp_seconds{{{_MINE}}}": "0x9 600x20",
    }
    values = {_ANSWER: (2, 0), _AGE: (300, 300), _PROOF: (300, 900)}
    for what, (before, after) in values.items():
        wanted = {5: [(_LABELS, before)], 15: [(_LABELS, after)]}
        _check(tmp_path, series, _asked(title, what), wanted)


@_BOTH
def test_a_query_proves_less_than_an_echo(title: str, tmp_path: Path) -> None:
    kinds = _MINE.replace("echo", "query")
    series = {f"whatsapp_channel_probe_success{{{kinds}}}": "0 1"}
    _check(tmp_path, series, _asked(title, _ANSWER), {0: [(_LABELS, 0)], 1: [(_LABELS, 1)]})
