"""Every message as it arrives, compared with the examples that are kept beside this file.

After a change of the templates: ``WRITE_EXAMPLES=1 make test ARGS=tests/notifications``, and then
read what git shows.
"""

from __future__ import annotations

import html
import json
import os
import re
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from tests.notifications.alertmanager import ADDRESS, Alertmanager
from tests.notifications.cases import CASES, LONGEST, over
from tests.support.inbox import Inbox
from tests.support.waiting import wait_until

EXAMPLES = Path(__file__).parent / "examples"
LANGUAGES = ["pt-BR", "en"]
PAGES = ["hostile", "many", "own"]
"""Cases whose mail is kept as a page too; the others differ in their lines alone."""
TELEGRAM_LIMIT = 4096


@dataclass(frozen=True)
class Message:
    """What came of one notification in each of the three ways."""

    mail: EmailMessage
    telegram: dict[str, Any]
    slack: dict[str, Any]

    @property
    def html(self) -> str:
        return self._part("html")

    @property
    def plain(self) -> str:
        return self._part("plain")

    @property
    def text(self) -> str:
        """Return all of it but the page as one text."""
        kept = {name: self.mail[name] for name in ("From", "To", "Subject")}
        return "\n".join(
            [
                *(f"{name}: {value}" for name, value in kept.items()),
                "",
                self.plain,
                "--- Telegram ---",
                json.dumps({k: v for k, v in self.telegram.items() if k != "text"}),
                "",
                self.telegram["text"],
                "--- Slack ---",
                json.dumps(self.slack, indent=2, ensure_ascii=False),
                "",
            ]
        )

    def _part(self, kind: str) -> str:
        part = self.mail.get_body((kind,))
        assert part is not None
        return str(part.get_content()).replace("\r\n", "\n")


@pytest.fixture(scope="module", params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def messages(
    language: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Message | None]:
    """Let all cases fire and then end, and return the message that tells all of each."""
    cases = {**CASES, "longest": LONGEST}
    alerts = [
        {**alert, "labels": {**alert["labels"], "case": case}}
        for case, of_case in cases.items()
        for alert in of_case
    ]
    firing = {case: f"{case} {len(of_case)} 0" for case, of_case in cases.items()}
    resolved = {case: f"{case} 0 {len(of_case)}" for case, of_case in cases.items()}
    folder = tmp_path_factory.mktemp("people")
    with (
        Inbox() as inbox,
        Alertmanager(folder, inbox, language, faster=30, by_case=True) as alertmanager,
    ):
        alertmanager.post(*alerts)
        _wait_for(inbox, firing)
        alertmanager.post(*map(over, alerts))
        _wait_for(inbox, resolved)
    return {
        (case, status): _message(inbox, marks[case])
        for status, marks in (("firing", firing), ("resolved", resolved))
        for case in cases
    }


def _wait_for(inbox: Inbox, marks: dict[str, str]) -> None:
    def missing() -> list[str]:
        return [mark for mark in marks.values() if _message(inbox, mark) is None]

    wait_until(lambda: not missing(), "a message of every case")


def _message(inbox: Inbox, mark: str) -> Message | None:
    """Return what was sent with this mark, without the mark; None until all three have it."""
    mails = [mail for mail in inbox.mails if mail["X-Case"] == mark]
    telegrams = [sent for sent in inbox.telegrams if sent["text"].endswith(f"#{mark}")]
    slacks = [sent for sent in inbox.slacks if sent["attachments"][0]["footer"] == mark]
    if not (mails and telegrams and slacks):
        return None
    (attachment,) = slacks[0]["attachments"]
    return Message(
        mails[0],
        {**telegrams[0], "text": telegrams[0]["text"].removesuffix(f"#{mark}")},
        {**slacks[0], "attachments": [{k: v for k, v in attachment.items() if k != "footer"}]},
    )


@pytest.mark.parametrize("status", ["firing", "resolved"])
@pytest.mark.parametrize("case", CASES)
def test_a_message_is_the_example(
    messages: dict[tuple[str, str], Message | None], language: str, case: str, status: str
) -> None:
    message = messages[case, status]
    assert message is not None
    _compare(message.text, EXAMPLES / language / f"{case}.{status}.txt")
    if case in PAGES:
        _compare(message.html, EXAMPLES / language / f"{case}.{status}.html")


@pytest.mark.parametrize("status", ["firing", "resolved"])
@pytest.mark.parametrize("case", [case for case in CASES if case not in PAGES])
def test_a_mails_page_has_the_lines_of_its_text(
    messages: dict[tuple[str, str], Message | None], case: str, status: str
) -> None:
    message = messages[case, status]
    assert message is not None
    head, _, body = message.html.partition("<body")
    assert f"<title>{message.mail['Subject']}</title>" in html.unescape(head)
    linked = re.sub(r'<a href="([^"]*)"[^>]*>(.*?)</a>', r"\2: \1", body)
    *lines, last = _lines(html.unescape(re.sub("<[^>]*>|^[^>]*>", "", linked)))
    assert lines == _lines(message.plain.partition("\n-- \n")[0])
    assert last == f"Zapwatch: {ADDRESS}/"


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _compare(text: str, path: Path) -> None:
    if os.environ.get("WRITE_EXAMPLES"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("case", ["hostile", "own"])
def test_no_name_is_a_link_where_a_message_is_read_as_markdown(
    messages: dict[tuple[str, str], Message | None], case: str
) -> None:
    message = messages[case, "firing"]
    assert message is not None
    assert "](" not in message.text


@pytest.mark.parametrize("status", ["firing", "resolved"])
def test_no_name_makes_a_message_that_telegram_refuses(
    messages: dict[tuple[str, str], Message | None], status: str
) -> None:
    message = messages["longest", status]
    assert message is not None
    text = message.telegram["text"]
    assert len(text) <= TELEGRAM_LIMIT
    # Cut off in the middle, there would be a tag without its end.
    assert text.count("<b>") == text.count("</b>") > 0
    assert text.count("<a href=") == text.count("</a>")


def test_there_is_an_example_of_every_case_and_no_other() -> None:
    expected = {
        f"{language}/{case}.{status}.{kind}"
        for language in LANGUAGES
        for case in CASES
        for status in ("firing", "resolved")
        for kind in ("txt", "html")
        if kind == "txt" or case in PAGES
    }
    found = {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.*")}
    assert found == expected
