"""Which ids mean one channel, which are none, and what a status means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zapwatch.channels import MAX_ID_LENGTH, Channel, Status, channel_key, is_usable_id


@pytest.mark.parametrize(
    "spelling",
    ["pixel12digital", "Pixel12 Digital", " PIXEL12\tDIGITAL\n", "Pixel12\u00a0Digital"],
)
def test_spellings_of_one_channel_have_one_key(spelling: str) -> None:
    assert channel_key(spelling) == "pixel12digital"


def test_both_unicode_forms_of_a_name_have_one_key() -> None:
    assert channel_key("Sa\u0303o Paulo") == channel_key("S\u00e3o Paulo") == "s\u00e3opaulo"


@pytest.mark.parametrize(
    "other", ["pixel12-digital", "pixel12", "píxel12digital", "pixel12.digital"]
)
def test_other_characters_make_another_channel(other: str) -> None:
    assert channel_key(other) != channel_key("pixel12digital")


@given(st.text(max_size=50))
def test_a_key_is_the_key_of_itself(text: str) -> None:
    assert channel_key(channel_key(text)) == channel_key(text)


@pytest.mark.parametrize(
    "channel_id",
    ["loja", "Pixel12 Digital", "a/b", "a+b", "São João", "客服", "🏠", "...", "x" * 255],
)
def test_ids_that_can_be_paths_and_labels_are_usable(channel_id: str) -> None:
    assert is_usable_id(channel_id)


@pytest.mark.parametrize(
    "channel_id",
    [
        "",
        "  ",
        "\t",
        ".",
        "..",
        ". .",
        "a\nb",
        "a\x00b",
        "a\x7f",
        "\ud800",
        "x" * 256,
        "\ufb03" * 255,
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


@pytest.mark.parametrize("status", list(Status))
def test_only_connected_means_connected(status: Status) -> None:
    assert Channel("loja", status).connected is (status.value == "connected")


def test_a_channel_keeps_the_spelling_of_the_gateway_beside_its_key() -> None:
    channel = Channel("Pixel12 Digital", Status.CONNECTED)

    assert (channel.id, channel.key) == ("Pixel12 Digital", "pixel12digital")
