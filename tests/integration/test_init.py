"""``zapwatch init`` at a pseudo-terminal, and with flags."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.simulator.apis.whapi import token_of
from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from tests.support.certificates import self_signed
from tests.support.hooks import SECRET
from tests.support.inbox import Inbox
from tests.support.mariadb import MariaDb
from tests.support.message_logs import WrittenLog
from tests.support.pixelhub import encrypt
from tests.support.ports import free_port
from tests.support.programs import run_here
from tests.support.raw_server import RawServer, silent
from tests.support.shipped import read_yaml, run
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until
from zapwatch.alertmanager import ways_to_people
from zapwatch.config import load
from zapwatch.gateways import TYPES
from zapwatch.setup.command import main as init
from zapwatch.setup.ways import WAYS, read_way

_ENGLISH = {"LC_ALL": "C.UTF-8"}
_INIT = ("-c", "from zapwatch.cli import main; main()", "init")
_PAGE = "https://zapwatch.example.com"


@pytest.fixture
def simulator(simulator: Simulator) -> Simulator:
    simulator.put_channel("loja")
    simulator.put_channel("Pixel12 Digital")
    return simulator


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with Inbox() as made:
        yield made


def _init(folder: Path, *arguments: str, **settings: str) -> Terminal:
    return Terminal(folder, *_INIT, *arguments, settings={**_ENGLISH, **settings})


def _flags(
    folder: Path, url: str, *arguments: str, code: int = 0, secret: str = SECRET, **settings: str
) -> str:
    """Run it with ``--yes``, and return what it says."""
    given = ("--set", f"WPP_GATEWAY_BASE_URL={url}", "--set", "MESSAGE_SOURCE=events")
    settings = {**_ENGLISH, "WPP_GATEWAY_SECRET": secret, **settings}
    command = ("zapwatch.setup.command", "--yes", *given, *arguments)
    done = run_here(folder, *command, settings=settings)
    assert done.returncode == code, done
    return done.stdout + done.stderr


def _alertmanager(folder: Path, text: str) -> Path:
    file = folder / "etc" / "alertmanager.yml"
    file.parent.mkdir()
    file.write_text(text)
    return file


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def _find_the_gateway(person: Terminal, url: str) -> None:
    """Answer with a wrong port, then with a wrong key, then right."""
    shown = person.answer("Number [1]:")
    assert "PixelHub's own gateway" in shown
    assert f"{len(TYPES)}) wwebjs-api" in shown
    person.answer("PixelHub's .env")
    person.answer("Address of the gateway")
    assert "WPP_GATEWAY_BASE_URL: A value is required." in person.wait_for("Address of the")
    # No port listens there.
    person.answer("Address of the gateway", f"http://127.0.0.1:{free_port()}")
    person.answer("Its key", SECRET)
    assert "nothing answers there. Is the port right" in person.answer("Number [1]:")
    # The wrong key.
    person.answer("Number [1]:")
    person.answer("PixelHub's .env")
    person.answer("Address of the gateway", url)
    person.answer("Enter keeps the current one", "not-the-key")
    assert "the secret is wrong. Copy it again, without blanks.\x1b" in person.answer("Number [1]:")
    person.answer("Number [1]:")
    person.answer("PixelHub's .env")
    person.answer(f"[{url}]")
    person.answer("Its key", SECRET)
    said = person.answer("Number [1]:")
    assert "channels: 2" in said
    assert "loja (connected)" in said


class TestEnglish:
    def test_wrong_answers_are_said_at_once_and_the_right_ones_written(
        self, simulator: Simulator, mariadb: MariaDb, mariadb_log: WrittenLog, inbox: Inbox,
        tmp_path: Path,
    ) -> None:  # fmt: skip
        mariadb_log.write_many(["loja", "Loja "])
        log = mariadb_log.reader
        with _init(tmp_path) as person:
            _find_the_gateway(person, simulator.url)
            # The database: none, then the right one.
            person.answer("Database server", "127.0.0.1")
            person.answer("Its port", str(free_port()))
            person.answer("Database", str(log.database))
            person.answer("User", str(log.username))
            person.answer("Password", str(log.password))
            assert "✗" in person.answer("Number [1]:")
            person.answer("Number [1]:")
            person.answer("Database server")
            person.answer("Its port", str(mariadb.port))
            person.answer("Database")
            person.answer("User")
            person.answer("Password")
            assert "Channels with a message in the last hour: 1" in person.answer(
                "Address at which", _PAGE
            )
            # Slack, and no one else.
            person.answer("How?\n", "3")
            person.answer("Address of the webhook", f"{inbox.http}/slack")
            assert "No one else" in person.answer("Number [7]:")
            person.answer("Send a test message now? (Y/n)")
            assert "✓ slack: delivered" in person.answer("Its address (empty: none)", "nonsense")
            assert "must be an address" in person.answer("Its address (empty: none)")
            assert "make run" in person.wait_for("The page asks")
            assert person.end() == 0
        assert SECRET not in person.said
        settings = load(str(tmp_path / ".env"), {})
        (gateway,) = settings.gateways
        assert (gateway.base_url, gateway.secret) == (simulator.url, SECRET)
        assert gateway.message_log_url is not None
        assert gateway.message_log_url.password == log.password
        assert settings.alertmanager_file == str(tmp_path / "etc" / "alertmanager.yml")
        (message,) = inbox.slacks[0]["attachments"]
        assert message["title"] == "Test message: nothing is wrong"
        assert message["title_link"] == f"{_PAGE}/"
        files = [tmp_path / ".env", *(tmp_path / "etc").iterdir()]
        assert {path.name: _mode(path) for path in files} == dict.fromkeys(
            (".env", "alertmanager.yml", "address.tmpl", "hook-token"), 0o600
        )
        run("amtool", "check-config", tmp_path / "etc" / "alertmanager.yml")

    def test_a_gateway_with_a_certificate_of_its_own_is_trusted(self, tmp_path: Path) -> None:
        pair = self_signed(tmp_path)
        other = self_signed(tmp_path.parent)
        with SimulatorServer(SECRET, tls=pair) as server, _init(tmp_path) as person:
            Simulator(server.url, verify=str(pair[0])).put_channel("loja")
            person.answer("Number [1]:")
            person.answer("PixelHub's .env")
            person.answer("Address of the gateway", server.url)
            person.answer("Its key", SECRET)
            assert "WPP_GATEWAY_CA_FILE" in person.answer("own certificate", "none.pem")
            said = person.answer("own certificate", str(other[0]))
            assert "none.pem cannot be read" in said
            person.answer(f"[{other[0]}]", pair[0].name)
            person.stop("Number [1]:", "continues from there.")
        (gateway,) = load(str(tmp_path / ".env"), {}).gateways
        assert gateway.ca_file == str(pair[0])

    @pytest.mark.parametrize(
        ("url", "questions"),
        [("none", ["Number [3]:"]), ("sqlite:////nowhere/log", ["Number [1]:"] * 3)],
    )
    def test_a_log_that_is_off_or_wrong_can_be_corrected(
        self, simulator: Simulator, tmp_path: Path, url: str, questions: list[str]
    ) -> None:
        (tmp_path / ".env").write_text(
            f"WPP_GATEWAY_BASE_URL={simulator.url}\nWPP_GATEWAY_SECRET={SECRET}\n"
            f"MESSAGE_LOG_URL={url}\n"
        )
        with _init(tmp_path) as person:
            person.answer("Keep it?")
            for question in questions:
                person.answer(question, "1")
            person.answer("Database server", "127.0.0.1")
            person.stop("Its port", "continues from there.")
            assert person.end() == 130

    def test_ctrl_c_during_a_trial_stops_it_too(self, tmp_path: Path) -> None:
        with RawServer(silent) as server, _init(tmp_path) as person:
            person.answer("Number [1]:")
            person.answer("PixelHub's .env")
            person.answer("Address of the gateway", server.url)
            person.answer("Its key", SECRET)
            wait_until(lambda: server.requests, "the trial")
            person.stop("", "continues from there.")
            assert "Traceback" not in person.said
            assert person.end() == 130


class TestPortuguese:
    def test_pixelhubs_answers_are_taken_and_a_stopped_run_goes_on(
        self, simulator: Simulator, inbox: Inbox, tmp_path: Path
    ) -> None:
        stored = encrypt(SECRET, "not-a-real-key", bytes(16))
        theirs = tmp_path / "pixelhub.env"
        theirs.write_text(
            f"APP_NAME=PixelHub\nWPP_GATEWAY_BASE_URL={simulator.url}\n"
            f"WPP_GATEWAY_SECRET={stored}\nINFRA_SECRET_KEY=not-a-real-key\n"
            "DB_HOST=127.0.0.1\nDB_USER=pixelhub\nDB_PASS=x\nDB_NAME=their_db\n"
        )
        with _init(tmp_path, "--language", "pt-BR") as person:
            assert "Qual gateway você usa?" in person.answer("Número [1]:")
            person.answer(".env do PixelHub", "wrong.env")
            assert "there is no file" in person.answer(".env do PixelHub", str(theirs))
            person.answer(f"Endereço do gateway, com a porta [{simulator.url}]:")
            person.answer("Enter mantém o atual")
            assert "canais: 2" in person.wait_for("Qual fonte de mensagens?")
            person.stop("Número [1]:", "o mesmo comando continua dali.")
            assert person.end() == 130
        # PixelHub's answers stay in PixelHub's file.
        (gateway,) = load(str(tmp_path / ".env"), {}).gateways
        assert (gateway.base_url, gateway.secret) == (simulator.url, SECRET)
        assert gateway.message_log_url is not None
        assert gateway.message_log_url.database == "their_db"
        with _init(tmp_path, "--language", "pt-BR") as person:
            assert "canais: 2" in person.answer("Manter? (S/n)")
            # The database of PixelHub does not answer: it is kept all the same.
            person.answer("Número [1]:")
            person.answer("Número [1]:", "2")
            person.answer("Endereço em que um celular abre a página", _PAGE)
            person.answer("Por onde?\n", "5")
            person.answer("Endereço do tópico", f"{inbox.http}/topic")
            person.answer("Token de acesso")
            person.answer("Número [7]:")
            person.answer("Enviar uma mensagem de teste agora? (S/n)", "n")
            person.answer("O endereço dele (vazio: nenhum)")
            assert person.end() == 0
        file = tmp_path / "etc" / "alertmanager.yml"
        written = file.read_text()
        with _init(tmp_path, "--language", "pt-BR") as person:
            person.answer("Manter? (S/n)")
            person.answer("Número [1]:")
            person.answer("Número [1]:", "2")
            said = person.answer("substituir esse arquivo? (s/N)")
            assert "as pessoas são avisadas por ntfy" in said
            person.answer("O endereço dele (vazio: nenhum)")
            assert person.end() == 0
        assert file.read_text() == written
        config = read_yaml(file)
        assert any("pt-BR" in folder for folder in config["templates"])
        assert ways_to_people(config) == {"ntfy": 1}


class TestFlags:
    def test_all_ways_are_written_and_tried(
        self, simulator: Simulator, inbox: Inbox, tmp_path: Path
    ) -> None:
        (tmp_path / "token").write_text("0000000000:not-a-real-token\n")
        ways = (
            f"--tell telegram bot_token=@token chat_id=-1 api_url={inbox.http}",
            f"--tell email to=me@example.com smarthost={inbox.smtp} from=zapwatch@example.com",
            f"--tell slack api_url={inbox.http}/slack",
            f"--tell discord webhook_url={inbox.http}/discord",
            f"--tell ntfy url={inbox.http}/topic token=tk_not_real",
            f"--tell webhook url={inbox.http}/mine",
        )
        said = _flags(tmp_path, simulator.url, *" ".join(ways).split(), "--address", _PAGE)
        # Alertmanager counts ntfy's deliveries as Discord's.
        for way in ("telegram", "email", "slack", "discord, ntfy", "webhook"):
            assert f"✓ {way}: delivered" in said
        assert inbox.counts == (1, 1, 1)
        # ntfy's templates read these two texts.
        (embed,) = inbox.ntfys[0]["embeds"]
        assert embed["title"] == "Test message: nothing is wrong"
        assert f"{_PAGE}/" in embed["description"]
        assert f'href="{_PAGE}/"' in inbox.telegrams[0]["text"]
        run("amtool", "check-config", tmp_path / "etc" / "alertmanager.yml")

    def test_ntfy_is_named_where_it_fails(self, simulator: Simulator, tmp_path: Path) -> None:
        nowhere = f"url=http://127.0.0.1:{free_port()}/topic"
        said = _flags(tmp_path, simulator.url, "--tell", "ntfy", nowhere, code=1)
        assert "✗ ntfy\n    ntfy: " in said
        assert "discord" not in said

    def test_each_step_says_what_it_chose_and_which_flag_changes_it(
        self, simulator: Simulator, inbox: Inbox, tmp_path: Path
    ) -> None:
        said = _flags(tmp_path, simulator.url, "--set", "MESSAGE_SOURCE=None")
        assert "✓ None: only drops are detected\n" in said
        assert "  For now: the log of the Zapwatch server (--tell)\n" in said
        assert "  no one (--set HEARTBEAT_URL=...)\n" in said
        beat = f"HEARTBEAT_URL={inbox.http}/beat"
        assert "✓ HEARTBEAT_URL\n" in _flags(tmp_path, simulator.url, "--set", beat)
        theirs = tmp_path / "pixelhub" / ".env"
        theirs.parent.mkdir()
        theirs.write_text("DB_HOST=127.0.0.1\n")
        (tmp_path / "zapwatch").mkdir()
        assert f"  PIXELHUB_ENV={theirs}\n" in _flags(tmp_path / "zapwatch", simulator.url)

    @pytest.mark.parametrize("name", ["WPP_GATEWAY_BASE_URL", "WPP_GATEWAY_SECRET"])
    def test_a_missing_setting_names_its_flag(self, tmp_path: Path, name: str) -> None:
        # Names of types are read in any case.
        flags = ("WPP_GATEWAY_TYPE=WAHA", "WPP_GATEWAY_BASE_URL=http://127.0.0.1:1")
        kept = [part for flag in flags if not flag.startswith(name) for part in ("--set", flag)]
        command = ("zapwatch.setup.command", "--yes", *kept)
        done = run_here(tmp_path, *command, settings=_ENGLISH)
        assert done.returncode == 2
        assert done.stderr == f"init: --set {name}=...: A value is required.\n"

    def test_the_name_of_a_type_may_have_capitals(self, tmp_path: Path) -> None:
        url = f"http://127.0.0.1:{free_port()}"
        said = _flags(tmp_path, url, "--set", "WPP_GATEWAY_TYPE=WAHA", code=1)
        assert "Its usual port: 3000\n" in said

    def test_a_path_too_many_is_likely_where_an_answer_has_no_list(
        self, simulator: Simulator, tmp_path: Path
    ) -> None:
        said = _flags(tmp_path, f"{simulator.url}/manager", code=1)
        assert "✗ http: HTTP 404" in said
        assert "Does the address end with the port?" in said

    def test_a_second_run_changes_nothing(self, simulator: Simulator, tmp_path: Path) -> None:
        simulator.put_channel("ob\u202era")
        _flags(tmp_path, simulator.url, "--tell", "webhook", "url=http://127.0.0.1:1", code=1)
        files = (tmp_path / ".env", *sorted((tmp_path / "etc").iterdir()))
        before = [path.read_text() for path in files]
        said = _flags(tmp_path, simulator.url)
        assert "ob\\u202era (connected)" in said
        assert "people are notified by webhook" in said
        for ignored in (("--tell", "ntfy", "url=http://127.0.0.1:1"), ("--address", _PAGE)):
            said = _flags(tmp_path, simulator.url, *ignored, code=1)
            assert "✗ That file stays as it is; --overwrite replaces it." in said
        assert [path.read_text() for path in files] == before

    def test_a_file_of_several_gateways_needs_no_settings_beside_it(
        self, simulator: Simulator, tmp_path: Path
    ) -> None:
        several, env = tmp_path / "gateways.yaml", tmp_path / ".env"
        command = ("zapwatch.setup.command", "--yes", "--set", f"GATEWAYS_FILE={several}")
        done = run_here(tmp_path, *command, settings=_ENGLISH)
        assert (done.returncode, env.exists()) == (2, False)
        assert f"GATEWAYS_FILE: {several} cannot be read" in done.stderr
        gateway = f"name: a, type: wrapper, url: '{simulator.url}', secret: {SECRET}"
        several.write_text(f"gateways: [{{{gateway}, messages: none}}]\n")
        done = run_here(tmp_path, *command, settings=_ENGLISH)
        assert done.returncode == 0, done
        assert [one.name for one in load(str(env), {}).gateways] == ["a"]

    def test_settings_and_alertmanager_agree_on_the_token(
        self, simulator: Simulator, tmp_path: Path
    ) -> None:
        token, env = tmp_path / "etc" / "hook-token", tmp_path / ".env"
        _flags(tmp_path, simulator.url)
        first = token.read_text()
        env.unlink()
        _flags(tmp_path, simulator.url)
        assert load(str(env), {}).hook_token == first
        another = "another-token-that-is-not-real"
        _flags(tmp_path, simulator.url, "--set", f"HOOK_TOKEN={another}")
        assert token.read_text() == load(str(env), {}).hook_token == another

    def test_the_page_of_a_hook_at_all_addresses_has_the_machines_name(
        self, simulator: Simulator, tmp_path: Path
    ) -> None:
        _flags(tmp_path, simulator.url, "--set", "HOOK_LISTEN=0.0.0.0:9862")
        address = (tmp_path / "etc" / "address.tmpl").read_text()
        assert f"http://{socket.gethostname()}:9862" in address
        assert load(str(tmp_path / ".env"), {}).hook_external_url == ""
        # As in compose.bridge.yaml, where that name is not the container's.
        container = tmp_path / "container"
        container.mkdir()
        _flags(container, simulator.url, HOOK_LISTEN="0.0.0.0:9862")
        assert load(str(container / ".env"), {}).hook_external_url == "http://127.0.0.1:9862"

    def test_alertmanager_calls_a_hook_with_tls_at_all_addresses(
        self, simulator: Simulator, tmp_path: Path
    ) -> None:
        certificate, key = self_signed(tmp_path)
        web = tmp_path / "web.yml"
        web.write_text(f"tls_server_config: {{cert_file: {certificate}, key_file: {key}}}\n")
        more = ("--set", "HOOK_LISTEN=[::]:9862", "--set", f"WEB_CONFIG_FILE={web}")
        odd = ("--set", "WPP_GATEWAY_NAME=Loja 1", "--set", "MESSAGES_TOKEN=0123456789+&#abcd")
        said = _flags(tmp_path, simulator.url, *more, *odd)
        path = "/messages/Loja%201?token=0123456789%2B%26%23abcd"
        assert f"https://127.0.0.1:9861{path}\n" in said
        file = tmp_path / "etc" / "alertmanager.yml"
        run("amtool", "check-config", file)
        webhooks = [one for r in read_yaml(file)["receivers"] for one in r["webhook_configs"]]
        assert {one["url"].rpartition("/")[0] for one in webhooks} == {"https://[::1]:9862"}
        trust = {"server_name": "127.0.0.1", "ca_file": str(certificate)}
        assert all(one["http_config"]["tls_config"] == trust for one in webhooks)
        address = (tmp_path / "etc" / "address.tmpl").read_text()
        assert f"https://{socket.gethostname()}:9862" in address

    def test_a_foreign_file_is_replaced_only_when_that_is_asked_for(
        self, simulator: Simulator, tmp_path: Path
    ) -> None:
        theirs = "route: {receiver: me}\nreceivers: [{name: me}]\n"
        file = _alertmanager(tmp_path, theirs)
        kept = _flags(tmp_path, simulator.url, "--address", _PAGE)
        assert load(str(tmp_path / ".env"), {}).hook_external_url == _PAGE
        assert "needs in that file: docs/prometheus.md" in kept
        assert "in containers: docs/messages.md" in kept
        assert file.read_text() == theirs
        _flags(tmp_path, simulator.url, "--overwrite")
        assert file.with_name("alertmanager.yml.before-zapwatch").read_text() == theirs
        assert "reconnect-hook" in file.read_text()

    def test_a_file_that_was_edited_wrongly_is_not_replaced_unasked(
        self, simulator: Simulator, tmp_path: Path
    ) -> None:
        file = _alertmanager(tmp_path, "")
        for edited in (
            *("receivers: [\n", "receivers: 1\n", "receivers: [{webhook_configs: 1}]\n"),
            *("# x\n", "[" * 500),
        ):
            file.write_text(f"# Written by zapwatch init.\n{edited}")
            _flags(tmp_path, simulator.url)
            assert file.read_text().endswith(edited)

    @pytest.mark.parametrize(("own", "replaced"), [("", True), ("# mine\n", False)])
    def test_the_sample_of_debians_package_is_replaced_unasked(
        self, simulator: Simulator, tmp_path: Path, own: str, replaced: bool
    ) -> None:
        sample = "receivers: [{name: team-X, email_configs: [{to: team-X@example.org}]}]\n"
        file = _alertmanager(tmp_path, own + sample)
        digest = hashlib.md5(sample.encode(), usedforsecurity=False).hexdigest()
        dpkg = tmp_path / "dpkg-query"
        dpkg.write_text(f"#!/bin/sh\necho ' /etc/default/x 0'; echo ' {file} {digest}'\n")
        dpkg.chmod(0o700)
        _flags(tmp_path, simulator.url, PATH=f"{tmp_path}:{os.environ['PATH']}")
        assert ("reconnect-hook" in file.read_text()) is replaced
        assert file.with_name("alertmanager.yml.before-zapwatch").exists() is replaced

    def test_what_stands_in_the_settings_already_stays(
        self, simulator: Simulator, tmp_path: Path
    ) -> None:
        env, link = tmp_path / "shared.env", tmp_path / ".env"
        env.write_text("# mine\nSILENT_HOURS=9 # long\nHOOK_TOKEN=a-token-that-is-not-real\n")
        env.chmod(0o640)
        link.symlink_to(env)
        _flags(tmp_path, simulator.url)
        assert link.is_symlink()
        assert env.read_text().startswith("# mine\nSILENT_HOURS=9 # long\n")
        assert _mode(env) == 0o640
        assert load(str(env), {}).hook_token == "a-token-that-is-not-real"
        assert (tmp_path / "etc" / "hook-token").read_text() == "a-token-that-is-not-real"

    def test_a_file_in_another_encoding_is_named_with_what_to_do(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_bytes("# configuração\n".encode("latin-1"))
        said = _flags(tmp_path, "http://127.0.0.1:1", code=2)
        assert said.startswith("init: .env is not UTF-8 text: save it as UTF-8")

    def test_a_new_key_replaces_the_file_that_held_the_old_one_once_it_is_right(
        self, simulator: Simulator, tmp_path: Path
    ) -> None:
        said = _flags(tmp_path, simulator.url, secret="not-the-key", code=1)
        assert "the secret is wrong" in said
        assert list(tmp_path.iterdir()) == []
        (tmp_path / "old-key").write_text("not-the-key\n")
        env = tmp_path / ".env"
        env.write_text(f"WPP_GATEWAY_SECRET_FILE={tmp_path / 'old-key'}\n")
        _flags(tmp_path, simulator.url)
        assert load(str(env), {}).gateways[0].secret == SECRET

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            ("--set WPP_GATEWAY_URL=x", "there is no 'WPP_GATEWAY_URL'"),
            ("--tell pigeon to=me", "--tell must name one of telegram"),
            (
                "--tell telegram chat_id=-1",
                "bot_token: A value is required. It takes bot_token=... ",
            ),
            ("--tell email host=x", "takes to=... smarthost=..."),
            ("--set HOOK_TOKEN=@missing", "missing"),
        ],
    )
    def test_a_wrong_flag_is_one_line(self, tmp_path: Path, flags: str, said: str) -> None:
        line = _flags(tmp_path, "http://127.0.0.1:1", *flags.split(), code=2)
        assert said in line
        assert len(line.splitlines()) == 1

    @pytest.mark.parametrize("name", ["HOOK_TOKEN", "MESSAGES_TOKEN"])
    def test_a_token_that_the_programs_refuse_is_refused(
        self, simulator: Simulator, tmp_path: Path, name: str
    ) -> None:
        said = _flags(tmp_path, simulator.url, "--set", f"{name}=aaaaaaaaaaaaaaaaaaaa", code=2)
        assert f"init: {name} can be guessed: " in said

    def test_without_a_terminal_it_ends_with_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "isatty", lambda _: False)
        done = run_here(tmp_path, "zapwatch.setup.command", settings=_ENGLISH)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("init: there is no terminal for the questions: ")
        assert done.stderr.count("\n") == 1


class TestFirstRun:
    @pytest.mark.parametrize(
        ("key", "then"),
        [
            ("s", "Which gateway do you run?"),
            ("d", "this is a demonstration with a simulated"),
            ("d\n", "this is a demonstration with a simulated"),
        ],
    )
    def test_make_run_begins_with_the_questions_or_the_demonstration(
        self, tmp_path: Path, key: str, then: str
    ) -> None:
        with Terminal(tmp_path, "-m", "demo", settings=_ENGLISH) as person:
            person.press("d: a demonstration.", key, then)

    def test_make_run_shows_no_command_to_run_next(
        self, simulator: Simulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = [
            *("--yes", "--language=en", f"--env-file={tmp_path / '.env'}"),
            *("--set", f"WPP_GATEWAY_BASE_URL={simulator.url}"),
            *("--set", f"WPP_GATEWAY_SECRET={SECRET}", "--set", "MESSAGE_SOURCE=none"),
        ]
        assert init(arguments, runs_next=True) == 0
        said = capsys.readouterr().out
        assert "The page asks for a password" in said
        assert "Next" not in said


@pytest.mark.parametrize(
    ("tell", "key", "value"),
    [
        (
            "ntfy url=https://ntfy.example.com/a?auth=b",
            "webhook_url",
            "https://ntfy.example.com/a?auth=b&tpl=",
        ),
        ("email to=me@example.com smarthost=h:587 username=apikey", "from", "me@example.com"),
        ("email to=me@example.com smarthost=h:587 username=i@example.com", "from", "i@example.com"),
    ],
)
def test_an_answer_makes_an_entry_that_works(tell: str, key: str, value: str) -> None:
    way, values = read_way(tell.split(), str)
    _, entry = WAYS[way].build(values, _PAGE)
    assert entry[key].startswith(value)


@pytest.mark.parametrize("api", ["wppconnect", "evolution", "waha", "whapi"])
def test_every_kind_of_gateway_is_set_up_without_a_second_file(tmp_path: Path, api: str) -> None:
    more = ("--set", f"WPP_GATEWAY_TYPE={api}", "--set", "WPP_GATEWAY_NAME=loja")
    secret = token_of(SECRET, "loja") if api == "whapi" else SECRET
    with SimulatorServer(SECRET, api=api) as server:
        Simulator(server.url).put_channel("loja")
        said = _flags(tmp_path, server.url, *more, secret=secret)
    assert "channels: 1\n  loja" in said
    assert "/messages/loja?token=" in said
