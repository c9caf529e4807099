"""docs/high-availability.md, followed on the first of two machines while the second is not there.

What two of them do together is for tests/e2e/test_cluster.py, on the same files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.support.guides import (
    CHECKOUT_PACKAGES,
    FILL_IN,
    LOG,
    SECRET,
    blocks,
    simulate,
    start_gateway,
)
from tests.support.machine import Machine
from tests.support.release import ROOT

_GUIDE = "high-availability.md"
# The guide's own addresses: of this machine, and of the database. Nobody is at 10.0.0.2.
_NETWORK = "ip address add 10.0.0.1/32 dev lo; ip address add 10.0.0.3/32 dev lo"
_DATABASE = """
install -d -o mysql /run/mysqld /srv/database
mariadb-install-db --no-defaults --user=mysql --datadir=/srv/database >/dev/null
systemd-run --quiet --unit=database mariadbd --no-defaults --user=mysql \
    --datadir=/srv/database --socket=/run/mysqld/mysqld.sock --bind-address=10.0.0.3
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("machine"), ROOT) as made:
        made.run(CHECKOUT_PACKAGES + _NETWORK)
        made.run(_DATABASE)
        install = next(block for block in blocks() if block.startswith("make install"))
        made.run(f"{install}\n{FILL_IN}")
        start_gateway(made, SECRET, "Loja Centro")
        made.wait_for("mariadb -e 'SELECT 1'", "the database")
        (sql,) = blocks(_GUIDE, "sql")
        made.run(f"mariadb <<'END'\n{sql}\nEND")
        fill_in, start, *_ = blocks(_GUIDE)
        made.run(fill_in)
        made.run(start)
        yield made


def test_one_of_two_machines_repairs_a_drop_alone(machine: Machine) -> None:
    for address in ("10.0.0.1:9861/-/ready", "10.0.0.1:9862/-/ready", "10.0.0.1:9090/-/ready"):
        machine.wait_for(f"curl --silent --fail http://{address}", address)
    simulate(machine, "Loja Centro", "drop")
    assert "outcome=reconnected" in machine.wait_for(f"grep Loja {LOG}", "the repair")
    told = "SELECT outcome FROM zapwatch.repair_log"
    # The line in the log comes first.
    ask = f"mariadb --skip-column-names -e '{told}' | grep --line-regexp reconnected"
    assert machine.wait_for(ask, "the outcome in the state") == "reconnected\n"


def test_it_sees_that_the_other_one_is_not_there(machine: Machine) -> None:
    look = f"HERE=10.0.0.1\n{blocks(_GUIDE)[2]}"
    asked = "promtool query instant http://10.0.0.1:9090 'count(up == 0) == 4' | grep '=> 4'"
    machine.wait_for(asked, "Prometheus to have asked all")
    settled = "amtool --alertmanager.url=http://10.0.0.1:9093 cluster show | grep ready"
    machine.wait_for(settled, "Alertmanager to have settled")
    seen = machine.run(look).stdout
    down = set(re.findall(r'instance="([^"]+)"', seen))
    assert down == {f"10.0.0.2:{port}" for port in (9090, 9093, 9861, 9862)}
    assert re.search(r"Cluster Status: +ready\n", seen)


def test_the_addresses_are_filled_in_and_the_secrets_are_kept(machine: Machine) -> None:
    machine.run(blocks(_GUIDE)[3])
    files = "/etc/prometheus /etc/default/prometheus* /etc/zapwatch"
    left = machine.run(
        f"grep -rE 'machine-[ab]|this-machine|state-password|put-the' {files}", check=False
    )
    assert left.stdout == ""
    modes = "stat --format '%U %G %a' /etc/prometheus/alertmanager.yml /etc/prometheus/hook-token"
    assert machine.run(modes).stdout == "root prometheus 640\nprometheus prometheus 400\n"
