"""Links to the hook, as people reach it."""

from __future__ import annotations

import platform

import pytest

from tests.support.hooks import hook_settings
from zapwatch.config import Settings, hook_link, parse


def settings(**values: str) -> Settings:
    return parse(hook_settings("http://127.0.0.1:1", **values))


def test_a_link_begins_with_the_external_url() -> None:
    given = settings(HOOK_EXTERNAL_URL="https://example.com:8443/zap/watch/")
    assert hook_link(given) == "https://example.com:8443/zap/watch/"
    link = hook_link(given, "/channels/Loja São/1?", gateway="a&b")
    assert link == (
        "https://example.com:8443/zap/watch/channels/Loja%20S%C3%A3o/1%3F?gateway=a%26b"
    )


@pytest.mark.parametrize(
    ("listen", "host"),
    [
        ("127.0.0.1:9862", "127.0.0.1"),
        ("[::1]:9862", "[::1]"),
        ("0.0.0.0:9862", platform.node()),
        ("[::]:9862", platform.node()),
    ],
)
def test_without_one_a_link_leads_to_where_the_hook_listens(listen: str, host: str) -> None:
    assert hook_link(settings(HOOK_LISTEN=listen), "/x") == f"http://{host}:9862/x"
