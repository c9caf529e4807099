"""A Galera cluster of two MariaDB servers, one for each machine's hook."""

from __future__ import annotations

import configparser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.mariadb import MariaDb
from tests.support.ports import free_port

_FILE = Path(__file__).parents[2] / "deploy" / "ha" / "galera.cnf"


@contextmanager
def galera() -> Iterator[tuple[MariaDb, MariaDb]]:
    """Run both. The first has two votes, its own and an arbitrator's: it survives the second.

    The second has the first one's users, and so its password.
    """
    at = f"127.0.0.1:{free_port()}"
    with ExitStack() as stack:
        first = stack.enter_context(MariaDb(_node(at, "gcomm://", 2)))
        there = _node(f"127.0.0.1:{free_port()}", f"gcomm://{at}", 1)
        second = stack.enter_context(MariaDb(there, first.password))
        yield first, second


def _node(at: str, cluster: str, votes: int) -> dict[str, str]:
    """Return the options of deploy/ha/, with free ports and short timeouts."""
    shipped = configparser.ConfigParser()
    shipped.read(_FILE)
    provider = {
        "gmcast.listen_addr": f"tcp://{at}",
        "ist.recv_addr": f"127.0.0.1:{free_port()}",
        "gcache.size": "16M",
        "pc.weight": str(votes),
        "evs.keepalive_period": "PT0.5S",
        "evs.suspect_timeout": "PT2S",
    }
    return {
        **shipped["mariadbd"],
        "bind-address": "127.0.0.1",
        "wsrep_cluster_address": cluster,
        "wsrep_node_address": at,
        "wsrep_sst_receive_address": f"127.0.0.1:{free_port()}",
        "wsrep_provider_options": ";".join(f"{key}={value}" for key, value in provider.items()),
    }
