"""The crew: as many threads as have something to do, and one that looks for more."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import pytest
from reconnect_hook.worker_pool import WorkerPool

from reconnect_hook.context import Interrupted
from tests.support.waiting import wait_until

_SECONDS = 60.0


class Workshop:
    """Work that takes until it is allowed to end."""

    def __init__(self, most: int = 3) -> None:
        self.waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.may_end = threading.Event()
        self.given_back: list[int] = []
        self.crew = WorkerPool(most, self._find, self._do, self._release)

    def _find(self) -> int | None:
        try:
            return self.waiting.get_nowait()
        except queue.Empty:
            return None

    def _do(self, work: int) -> None:
        self.begun.append(work)
        assert self.may_end.wait(_SECONDS)
        self.crew.wait(0)
        self.ended.append(work)

    def _release(self) -> None:
        self.given_back = sorted(set(self.begun) - set(self.ended))

    def bring(self, *work: int) -> None:
        for one in work:
            self.waiting.put(one)
        self.crew.wake()

    def has(self, threads: int) -> None:
        wait_until(lambda: len(self.crew._threads) == threads, _SECONDS, f"{threads} threads")


@pytest.fixture
def workshop() -> Iterator[Workshop]:
    made = Workshop()
    made.crew.start()
    yield made
    made.may_end.set()
    made.crew.stop(_SECONDS)
    assert not made.crew._threads


def test_threads_come_with_the_work_and_go_with_it(workshop: Workshop) -> None:
    workshop.has(1)
    workshop.bring(1)
    wait_until(lambda: workshop.begun == [1], _SECONDS, "the work")
    workshop.has(2)
    workshop.bring(2, 3, 4, 5)
    wait_until(lambda: len(workshop.begun) == 3, _SECONDS, "all hands")
    workshop.has(3)
    assert len(workshop.begun) == 3, "no more than were allowed"
    workshop.may_end.set()
    wait_until(lambda: sorted(workshop.ended) == [1, 2, 3, 4, 5], _SECONDS, "all of it")
    workshop.has(1)


def test_what_nobody_told_of_is_found_as_well(workshop: Workshop) -> None:
    workshop.may_end.set()
    workshop.waiting.put(1)
    wait_until(lambda: workshop.ended == [1], _SECONDS, "the work")


def test_where_no_thread_can_be_had_the_others_go_on(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    workshop.has(1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        workshop.bring(1, 2)
        wait_until(lambda: workshop.begun == [1], _SECONDS, "the work")
        workshop.may_end.set()
        wait_until(lambda: workshop.ended == [1, 2], _SECONDS, "one after the other")
    assert "the system allows no more threads" in caplog.text
    workshop.has(1)


def test_it_ends_while_work_is_left(workshop: Workshop) -> None:
    workshop.bring(1, 2, 3, 4)
    wait_until(lambda: len(workshop.begun) == 3, _SECONDS, "all hands")
    workshop.crew.ensure_lease()
    workshop.crew.stop(0)
    assert workshop.given_back == [1, 2, 3]
    with pytest.raises(Interrupted):
        workshop.crew.ensure_lease()
    workshop.may_end.set()
    workshop.has(0)
    assert workshop.ended == []
    assert workshop.waiting.qsize() == 1
