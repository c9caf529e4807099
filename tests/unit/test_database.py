"""The state's file on SQLite: what happens when somebody takes it away."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import make_url

from reconnect_hook.database import Database, StateError
from reconnect_hook.intake import Intake
from reconnect_hook.memory import Memory


@pytest.mark.parametrize("replaced", [False, True])
def test_a_state_that_was_taken_away_is_not_written_to(tmp_path: Path, *, replaced: bool) -> None:
    path = tmp_path / "state.sqlite3"
    database = Database(make_url(f"sqlite:///{path}"))
    memory = Memory(database, "wpp")
    assert memory.queue().waiting == 0
    path.rename(tmp_path / "away")
    if replaced:
        path.touch()
    with pytest.raises(StateError, match="was deleted or replaced"):
        memory.queue()
    with pytest.raises(StateError, match="was deleted or replaced"):
        memory.note_unheard({})
    (tmp_path / "away").replace(path)
    assert memory.queue().waiting == 0
    assert Intake(database, "wpp", 300).accept([]) == []
    database.close()
