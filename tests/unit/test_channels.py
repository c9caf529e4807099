"""Which ids mean one channel, which are none, and what a status means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zapwatch.channels import (
    MAX_ID_LENGTH,
    AmbiguousNameError,
    Channel,
    Names,
    Status,
    channel_key,
    folded,
    is_usable_id,
    key_meant,
)
from zapwatch.gateways.base import ChannelList

_PIXEL = "Pixel12 Digital"


@pytest.mark.parametrize(
    ("spelling", "is_same", "is_alike"),
    [
        (_PIXEL, True, True),
        (f" {_PIXEL}\n", True, True),
        ("pixel12digital", False, True),
        ("PIXEL12\tDIGITAL", False, True),
        ("Pixel12\u00a0Digital", False, True),
        ("pixel12-digital", False, False),
        ("píxel12 digital", False, False),
    ],
)
def test_a_name_is_the_same_exactly_and_alike_without_letter_case_and_blanks(
    spelling: str, is_same: bool, is_alike: bool
) -> None:
    assert (channel_key(spelling) == channel_key(_PIXEL)) is is_same
    assert (folded(spelling) == folded(_PIXEL)) is is_alike


def test_both_unicode_forms_of_a_name_have_one_key() -> None:
    assert channel_key("Sa\u0303o Paulo") == channel_key("S\u00e3o Paulo") == "S\u00e3o Paulo"
    assert folded("SA\u0303O paulo") == "s\u00e3opaulo"


@given(st.text(max_size=50))
def test_a_key_is_the_key_of_itself(text: str) -> None:
    for key in (channel_key, folded):
        assert key(key(text)) == key(text)
    assert folded(channel_key(text)) == folded(text)


@pytest.mark.parametrize(
    ("name", "keys", "meant"),
    [
        ("loja", ("Loja", "loja"), "loja"),
        ("Loja", ("Loja", "loja"), "Loja"),
        ("LOJA", ("Loja",), "Loja"),
        ("lo ja", ("obra", "Loja"), "Loja"),
        ("obra", ("Loja",), None),
        ("LOJA", ("loja", "Loja"), "LOJA may be any of Loja, loja: letter case and blanks matter"),
    ],
)
def test_a_persons_spelling_means_the_exact_name_or_the_only_one_alike(
    name: str, keys: tuple[str, ...], meant: str | None
) -> None:
    try:
        found = key_meant(name, keys)
    except AmbiguousNameError as error:
        found = str(error).removesuffix(" here")
    assert found == meant


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (("Loja", "loja"), ("Loja", "loja", "LOJA")),
        (("Loja",), ("Loja", "Loja", "Loja")),
        (("obra",), ("Loja", "loja", "LOJA")),
    ],
)
def test_a_name_in_the_log_is_that_of_the_exact_channel_or_of_the_only_one_alike(
    listed: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    channels = ChannelList.of(Channel(name, Status.CONNECTED) for name in listed).channels
    for some in (channels, channels[:1]):
        found = Names(some)
        known = [found.key_of(name) for name in ("Loja", "loja", "LOJA")]
        assert known == list(expected), "also if only some of the list are known"


@pytest.mark.parametrize(
    "channel_id",
    ["loja", "Pixel12 Digital", "a/b", "a+b", "São João", "客服", "🏠", "...", "x" * 255],
)
def test_ids_that_can_be_paths_and_labels_are_usable(channel_id: str) -> None:
    assert is_usable_id(channel_id)


@pytest.mark.parametrize(
    "channel_id",
    [
        *("", "  ", "\t", ".", "..", ". .", "a\nb", "a\x00b", "a\x7f", "\ud800", "x" * 256),
        "\u0958" * 255,
    ],
    ids=ascii,
)
def test_ids_that_cannot_be_paths_or_labels_are_not_usable(channel_id: str) -> None:
    assert not is_usable_id(channel_id)


@given(st.text(max_size=MAX_ID_LENGTH + 5))
def test_a_usable_id_can_be_written_in_one_line_of_utf_8(text: str) -> None:
    if is_usable_id(text):
        assert "\n" not in text
        assert len(channel_key(text).encode()) > 0


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("spelled", [str.upper, str.title, lambda text: f"  {text}\n"])
def test_a_status_is_known_in_any_letter_case_and_with_stray_spaces(
    status: Status, spelled: type[str]
) -> None:
    assert Status.parse(spelled(status.value)) is status


@pytest.mark.parametrize(
    "raw", [None, "", "online", "not connected", "connected!", 1, True, [], {"status": "connected"}]
)
def test_whatever_else_a_gateway_says_is_unknown(raw: object) -> None:
    assert Status.parse(raw) is Status.UNKNOWN


def test_a_status_nested_beyond_what_python_can_print_is_unknown() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert Status.parse(deep) is Status.UNKNOWN
