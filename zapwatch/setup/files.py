"""Files that ``zapwatch init`` writes: settings, Alertmanager's file, address and token."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dotenv
import yaml

from zapwatch.alertmanager import ways_to_people
from zapwatch.config.files import is_there, parse_own_env, read_env_text
from zapwatch.config.readers import SettingsError
from zapwatch.config.settings import PIXELHUB

_CHECKOUT = Path(__file__).resolve().parents[2]

ROOT = (
    _CHECKOUT
    if (_CHECKOUT / "prometheus" / "rules").is_dir()
    else Path(sysconfig.get_path("data")) / "share" / "zapwatch"
)
"""Folder of the shipped configuration, in a checkout or installed from a wheel."""

INSTALLED = Path("/etc/zapwatch")
"""Folder of the settings after ``make install``."""

_SERVICES = "zapwatch"  # their user
_SERVERS = Path("/etc/prometheus")
_MARK = "# Written by zapwatch init."
_OURS_ALONE = 0o600
_GROUP_MAY_READ = 0o640


def in_checkout() -> bool:
    """Whether this runs from a checkout, where ``make run`` is available."""
    return ROOT == _CHECKOUT


def alertmanager_folder(env_file: Path) -> Path:
    """Return the folder for Alertmanager's file, which depends on that of the settings."""
    if env_file.resolve().parent == INSTALLED:
        return _SERVERS
    return env_file.resolve().parent / "etc"


class EnvFile:
    """Zapwatch's ``.env``; a new one is a copy of the example."""

    def __init__(self, path: Path) -> None:
        """Read the file if it exists; raise SettingsError."""
        self.path = path
        there = is_there(path, "--env-file")
        self._text = read_env_text(str(path), "--env-file") if there else None
        self._example = parse_own_env(_example(), "")
        self.values = parse_own_env(self._text, str(path)) if self._text is not None else {}

    def get(self, name: str) -> str:
        """Return an operator's value, empty for the example's placeholder."""
        value = self.values.get(name, "")
        return "" if self.is_example(name) and "example.com" in value else value

    def is_example(self, name: str) -> bool:
        """Whether a setting shared with PixelHub still has the example's value."""
        return name in PIXELHUB and self.values.get(name) == self._example.get(name)

    def update(self, values: Mapping[str, str]) -> None:
        """Write these values, clear placeholders, keep all else; raise SettingsError."""
        if self._text is None:
            self.values = dict(self._example)
        has_theirs = values.get("PIXELHUB_ENV") or self.values.get("PIXELHUB_ENV")
        untouched = {
            name: ""
            for name in PIXELHUB
            if self.is_example(name) and (has_theirs or not self.get(name))
        }
        changed = {
            name: value
            for name, value in (untouched | dict(values)).items()
            if self.values.get(name, "") != value
        }
        if not changed and self._text is not None:
            return
        try:
            if self._text is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                write_secret(self.path, _example(), _OURS_ALONE)
            before = self.path.stat()
            for name, value in changed.items():
                mode = "auto" if value else "never"
                dotenv.set_key(self.path, name, value, mode, follow_symlinks=True)
            # set_key() replaces the file; the service's group must still be able to read it.
            if os.geteuid() == 0:
                os.chown(self.path, before.st_uid, before.st_gid)
            self._text = self.path.read_text(encoding="utf-8")
        except OSError as error:
            raise SettingsError(f"{self.path} cannot be written: {error.strerror}") from None
        self.values = parse_own_env(self._text, str(self.path))


def _example() -> str:
    """Return the text of the example, from the checkout or the wheel."""
    name = ".env.example" if in_checkout() else "zapwatch.env.example"
    return (ROOT / name).read_text(encoding="utf-8")


def write_secret(path: Path, text: str, mode: int) -> None:
    """Create or replace a file atomically; its content is never readable beyond ``mode``."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
    new.replace(path)


class AlertmanagerFiles:
    """Alertmanager's file, the token for the hook, and the template with the page's address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "alertmanager.yml"
        self.token = folder / "hook-token"
        self.address = folder / "address.tmpl"

    def present(self) -> dict[str, Any] | None:
        """Return the current configuration, empty if it is unusable.

        None if the file is missing, empty or Debian's sample. Raises SettingsError.
        """
        try:
            text = self.file.read_text(encoding="utf-8")
            if not text.strip() or _is_packaged(self.file, text):
                return None
            found: dict[str, Any] = yaml.safe_load(text)
            ways_to_people(found)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SettingsError(f"{self.file} cannot be read: {error.strerror}") from None
        except (AttributeError, TypeError, ValueError, RecursionError, yaml.YAMLError):
            return {}
        return found

    @property
    def is_foreign(self) -> bool:
        """Whether a file exists that init did not write."""
        try:
            return not self.file.read_text(encoding="utf-8").startswith(_MARK)
        except FileNotFoundError:
            return False
        except (OSError, ValueError):
            return True

    def kept_token(self) -> str:
        """Return the token that Alertmanager sends, empty if there is none."""
        try:
            return self.token.read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return ""

    def change_token(self, token: str) -> None:
        """Replace an existing, different token; raise SettingsError."""
        if self.kept_token() not in {"", token}:
            try:
                self._write(self.token, token)
            except OSError as error:
                raise SettingsError(f"{self.token} cannot be written: {error.strerror}") from None

    def config(
        self,
        hook: str,
        language: str,
        people: Sequence[tuple[str, dict[str, Any]]],
        trust: Mapping[str, str],
    ) -> dict[str, Any]:
        """Return the shipped configuration with the hook's URL, the language, and the ways.

        ``trust`` is the ``tls_config`` for Alertmanager's calls to the hook.
        """
        shipped = ROOT / "alertmanager"
        config: dict[str, Any] = yaml.safe_load((shipped / "alertmanager.yml").read_text())
        templates = shipped / "templates"
        config["templates"] = [
            str(templates / "*.tmpl"),
            str(templates / language / "*.tmpl"),
            # Overrides the address in the shipped templates, and so comes last.
            str(self.address.resolve()),
        ]
        for receiver in config["receivers"]:
            for webhook in receiver["webhook_configs"]:
                webhook["url"] = webhook["url"].replace("http://127.0.0.1:9862", hook)
                if trust:
                    webhook["http_config"]["tls_config"] = dict(trust)
        receiver = next(one for one in config["receivers"] if one["name"] == "people")
        for key, entry in people:
            receiver.setdefault(key, []).append(entry)
        return config

    def write(self, config: Mapping[str, Any], token: str, page: str) -> list[Path]:
        """Write all three files, readable by Alertmanager only; return them.

        A file that init did not write is renamed to ``*.before-zapwatch``. Raises SettingsError.
        """
        text = (
            f"{_MARK} Change it as you like; then: zapwatch notify --reload {self.file}\n"
            "# docs/notifications.md explains it.\n" + yaml.safe_dump(config, sort_keys=False)
        )
        address = (
            "{{/* Where people open the page: every link in a message begins with this. */}}\n"
            f'{{{{ define "zapwatch.url" }}}}{page}{{{{ end }}}}\n'
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.is_foreign:
                self.file.replace(self.file.with_name(f"{self.file.name}.before-zapwatch"))
            for path, content in (
                (self.token, token),
                (self.address, address),
                (self.file, text),
            ):
                self._write(path, content)
        except OSError as error:
            raise SettingsError(f"{self.folder} cannot be written: {error.strerror}") from None
        return [self.file, self.address, self.token]

    def _write(self, path: Path, text: str) -> None:
        user = _servers_user() if self.folder == _SERVERS else None
        write_secret(path, text, _OURS_ALONE if user is None else _GROUP_MAY_READ)
        if user is not None:
            os.chown(path, 0, user.pw_gid)


def trusted(certificate: Path) -> dict[str, str]:
    """Return the ``tls_config`` of a client that connects to the certificate's owner by loopback.

    A self-signed certificate is its own CA. Raises SettingsError.
    """
    from cryptography import x509  # noqa: PLC0415 - the hook reads ROOT only

    try:
        read = x509.load_pem_x509_certificate(certificate.read_bytes())
        alternatives = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names: list[str] = []
    except (OSError, ValueError) as error:
        raise SettingsError(f"{certificate} cannot be read: {error}") from None
    else:
        names = [str(name.value).replace("*", "zapwatch") for name in alternatives]
    trust = {"server_name": names[0]} if names else {}
    return trust | ({"ca_file": str(certificate)} if read.issuer == read.subject else {})


def _is_packaged(file: Path, text: str) -> bool:
    """Whether a file still is as Debian's Alertmanager brought it: a sample for no one."""
    if shutil.which("dpkg-query") is None:
        return False
    known = _run("dpkg-query", "--show", "--showformat=${Conffiles}", "prometheus-alertmanager")
    digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()  # as dpkg does
    return f" {file.resolve()} {digest}" in known.stdout


def services_may_read(path: str) -> bool:
    """Whether the user of the installed services may read a file."""
    return _run("runuser", "-u", _SERVICES, "--", "test", "-r", path).returncode == 0


def join_group(path: str) -> None:
    """Add the user of the installed services to the group of a file, unless that is root's."""
    group = Path(path).stat().st_gid
    if group:
        _run("usermod", "--append", "--groups", str(group), _SERVICES)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603


def _servers_user() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam("prometheus") if os.geteuid() == 0 else None
    except KeyError:
        return None
