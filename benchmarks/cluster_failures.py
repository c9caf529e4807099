"""Cost of each part's failure: seconds from drop to getQr, with one part of deploy/ha/ dead.

    python -m benchmarks.cluster_failures [DROPS]

Runs two machines of deploy/ha/ on this one, with the shipped intervals, a real MariaDB and a
simulated gateway. Kills each part, drops channels in the next seconds, and restarts the part.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from demo.loop import PROGRAMS
from tests.support.cluster import Cluster
from tests.support.mariadb import MariaDb
from tests.support.waiting import wait_until

_SPREAD_SECONDS = 15.0
_AWAY_SECONDS = 60.0
_PATIENCE_SECONDS = 300.0
_HEADER = (
    "| killed | getQr, median | slowest | calls for one drop, at most |\n| --- | --- | --- | --- |"
)


def main() -> None:
    """Run the benchmark and print the results as table rows."""
    drops = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    cases = ["nothing", *(f"{p} {n}" for p in PROGRAMS for n in "ab"), "MariaDB"]
    channels = {case: [f"{case} {number}" for number in range(drops)] for case in cases}
    everything = [channel for some in channels.values() for channel in some]
    with tempfile.TemporaryDirectory() as folder, MariaDb() as server:
        state = server.url(server.create_database())
        with Cluster(Path(folder), state, everything, shorter=False) as cluster:
            print(_HEADER)
            _measure(cluster, channels["nothing"], "nothing")
            for program in PROGRAMS:
                for node in cluster.nodes:
                    node.kill(program)
                    case = f"{program} {node.name}"
                    _measure(cluster, channels[case], case)
                    node.start(program)
                    _wait(node.answers, f"{case} to be back")
                    cluster.wait_until_joined()
            _restart(cluster, server, channels["MariaDB"])
            _let_go(cluster)


def _measure(cluster: Cluster, channels: Sequence[str], case: str) -> None:
    began = time.monotonic()
    dropped = {}
    for number, channel in enumerate(channels):
        time.sleep(max(0.0, began + number * _SPREAD_SECONDS / len(channels) - time.monotonic()))
        dropped[channel] = time.monotonic()
        cluster.simulator.drop(channel)
    _report(cluster, dropped, case)


def _restart(cluster: Cluster, server: MariaDb, channels: Sequence[str]) -> None:
    server.stop()
    for channel in channels:
        cluster.simulator.drop(channel)
    time.sleep(_AWAY_SECONDS)
    server.start()
    back = time.monotonic()
    _report(cluster, dict.fromkeys(channels, back), "MariaDB, from its return")


def _report(cluster: Cluster, since: dict[str, float], case: str) -> None:
    _wait(lambda: all(map(cluster.outcomes, since)), f"repairs with {case} dead")
    called: dict[str, list[float]] = {}
    for call in cluster.simulator.requests("qr"):
        called.setdefault(call["channel"], []).append(call["monotonic"])
    seconds = [called[channel][0] - moment for channel, moment in since.items()]
    most = max(len(called[channel]) for channel in since)
    median = statistics.median(seconds)
    print(f"| {case} | {median:.1f} s | {max(seconds):.1f} s | {most} |", flush=True)


def _let_go(cluster: Cluster) -> None:
    for node in cluster.nodes:
        node.kill("prometheus")
    gone = time.monotonic()
    _wait(lambda: cluster.heartbeat.silent_for() > 3 * _AWAY_SECONDS, "the heartbeat to end")
    last = time.monotonic() - cluster.heartbeat.silent_for()
    print(f"Last heartbeat {max(0.0, last - gone):.0f} s after both Prometheus were killed.")


def _wait(condition: Callable[[], object], what: str) -> None:
    wait_until(condition, what, 2 * _PATIENCE_SECONDS)


if __name__ == "__main__":
    main()
