"""Holds calls and answers against a published OpenAPI document."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jsonschema_rs

_FOLDER = Path(__file__).parent


class Description:
    """One document."""

    def __init__(self, name: str) -> None:
        self._document: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text())
        self._paths: list[tuple[re.Pattern[str], str]] = [
            (re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path) + "$"), path)
            for path in self._document["paths"]
        ]

    def operation(self, method: str, target: str) -> str | None:
        """Return the document's path for a call, None where it does not tell of that call."""
        path = urlsplit(target).path
        for pattern, template in self._paths:
            if pattern.match(path) and method.lower() in self._document["paths"][template]:
                return template
        return None

    def check(
        self, method: str, target: str, body: object, status: int, content_type: str, answer: bytes
    ) -> None:
        """Raise AssertionError unless call and answer are as described."""
        template = self.operation(method, target)
        assert template is not None, (method, target)
        described = self._document["paths"][template][method.lower()]
        self._check_query(described.get("parameters", ()), target)
        wanted = described.get("requestBody")
        if wanted:
            assert body is not None or not wanted.get("required"), (method, target)
            self._validate(wanted["content"]["application/json"]["schema"], body)
        else:
            assert not body, (method, target)
        responses: Mapping[str, Any] = described["responses"]
        assert str(status) in responses or "default" in responses, (method, target, status)
        content = responses.get(str(status), responses.get("default")).get("content")
        if content:
            assert content_type in content, (method, target, content_type)
            self._validate(content[content_type]["schema"], json.loads(answer))

    def _check_query(self, parameters: Any, target: str) -> None:
        described = {p["name"]: p for p in parameters if p["in"] == "query"}
        given = dict(parse_qsl(urlsplit(target).query))
        assert given.keys() <= described.keys()
        assert {n for n, p in described.items() if p.get("required")} <= given.keys()
        for name, value in given.items():
            schema = described[name]["schema"]
            self._validate(schema, value if schema["type"] == "string" else json.loads(value))

    def _validate(self, schema: dict[str, Any], value: object) -> None:
        whole = schema | {"components": self._document["components"]}
        jsonschema_rs.Draft4Validator(whole).validate(value)
