"""docs/notifications.md says what the files say."""

from __future__ import annotations

import re

from demo.configuration import ROOT
from tests.support.shipped import ALERTMANAGER, EXAMPLES, LANGUAGES

GUIDE = (ROOT / "docs" / "notifications.md").read_text(encoding="utf-8")


def test_every_file_it_names_is_there() -> None:
    named = set(re.findall(r"templates/[\w*/.-]+", GUIDE))
    assert {f"templates/{language}/*.tmpl" for language in LANGUAGES} <= named
    for pattern in named:
        assert list(ALERTMANAGER.glob(pattern)), pattern


def test_the_address_is_set_as_it_says() -> None:
    (line,) = re.findall(r'{{ define "zapwatch.url" }}.*', GUIDE)
    shipped = (ALERTMANAGER / "templates" / "address.tmpl").read_text(encoding="utf-8")
    assert line.replace("https://zapwatch.example.com", "http://127.0.0.1:9862") in shipped


def test_every_way_to_reach_people_has_its_part() -> None:
    assert all(f"`{example}`" in GUIDE for example in EXAMPLES)
