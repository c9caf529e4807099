"""Works on a queue: as many threads as have something to do, and one that looks for more."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from reconnect_hook.context import Interrupted
from reconnect_hook.queue import LEASE_SECONDS
from zapwatch.db import StateError

_log = logging.getLogger("reconnect_hook")

_T = TypeVar("_T")
_Result = TypeVar("_Result")

IDLE_SECONDS = 1.0
"""Until the queue is looked at without being told: other hooks fill it too."""

_TROUBLE_SECONDS = 2.0  # until a state that failed is tried again
_RELEASE_SECONDS = 2.0  # for a state to take back what is under way


class WorkerPool(Generic[_T]):
    """Finds work and does it, ``most`` pieces at a time, until it is stopped.

    ``do`` ends by raising Interrupted where it is to be left, and ``release`` gives back what was
    left. A gateway that is well costs one thread, whatever it may have at once when it is not.
    """

    def __init__(
        self,
        most: int,
        find: Callable[[], _T | None],
        do: Callable[[_T], None],
        release: Callable[[], None],
    ) -> None:
        self._most = most
        self._find = find
        self._do = do
        self._release = release
        self._stopping = threading.Event()
        self._given_back = False
        self._calls = 0
        self._called = threading.Condition()
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._idle = 0

    def start(self) -> None:
        """Begin a thread that looks for work, unless one does or there are enough."""
        with self._lock:
            if self._idle or len(self._threads) >= self._most or self._stopping.is_set():
                return
            thread = threading.Thread(target=self._run, name="repairs", daemon=True)
            try:
                # Within the lock, since join() can only wait for one that has begun.
                thread.start()
            except RuntimeError:
                _log.warning("the system allows no more threads: repairs wait for each other")
            else:
                self._threads.add(thread)

    def wake(self) -> None:
        """Say that there is something to do."""
        with self._called:
            self._calls += 1
            self._called.notify()

    def wait(self, seconds: float) -> None:
        """Pause; raise Interrupted as soon as the crew is stopped."""
        if self._stopping.wait(seconds):
            raise Interrupted

    def retry_until_stored(self, change: Callable[[], _Result]) -> _Result:
        """Change the state, again and again until that works; raise what wait() does."""
        while True:
            try:
                return change()
            except StateError as error:
                _log.warning("state: %s; trying again", error)
                self.wait(_TROUBLE_SECONDS)

    def ensure_lease(self) -> None:
        """Raise Interrupted if what is under way was given back: somebody else may have it now."""
        if self._given_back:
            raise Interrupted

    def repeat(self, name: str, seconds: float, work: Callable[[], None]) -> None:
        """Do something every so many seconds, in a thread of its own, whatever comes of it."""
        threading.Thread(target=self._repeat, args=(seconds, work), name=name, daemon=True).start()

    def stop(self, seconds: float) -> None:
        """End: what is under way and cannot end in ``seconds`` is given back."""
        self._stopping.set()
        with self._called:
            self._called.notify_all()
        until = time.monotonic() + seconds
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        self._given_back = True
        # In a thread of its own, since a database that does not answer must not hold up the end.
        releasing = threading.Thread(target=self._give_back, name="release", daemon=True)
        releasing.start()
        releasing.join(_RELEASE_SECONDS)

    def _give_back(self) -> None:
        try:
            self._release()
        except StateError as error:
            _log.warning("state: %s; what is under way goes on in %.0f s", error, LEASE_SECONDS)

    def _repeat(self, seconds: float, work: Callable[[], None]) -> None:
        while not self._stopping.wait(seconds):
            try:
                work()
            except Interrupted:
                return
            except StateError as error:
                _log.warning("state: %s", error)
            except Exception:  # noqa: BLE001
                _log.exception("a fault of the hook itself")

    def _run(self) -> None:
        try:
            self._work()
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _work(self) -> None:
        while not self._stopping.is_set():
            calls = self._calls
            try:
                work = self._find()
                if work is not None:
                    # There may be more, and while this is being done somebody has to look.
                    self.start()
                    self._do(work)
                elif not self._wait_for_call(calls):
                    return  # another one looks already
            except Interrupted:
                return
            except StateError as error:
                _log.warning("state: %s", error)
                self._stopping.wait(_TROUBLE_SECONDS)
            except Exception:  # noqa: BLE001
                # Unforeseen, such as what drivers raise besides their own errors; but a thread that
                # dies would leave a hook that takes alerts and repairs nothing.
                _log.exception("the queue met a fault of the hook itself")
                self._stopping.wait(_TROUBLE_SECONDS)

    def _wait_for_call(self, calls: int) -> bool:
        """Wait for a call that came after the number ``calls``, or for a while.

        Returns False at once where another thread waits.
        """
        with self._lock:
            if self._idle:
                return False
            self._idle += 1
        try:
            with self._called:
                if self._calls == calls and not self._stopping.is_set():
                    self._called.wait(IDLE_SECONDS)
        finally:
            with self._lock:
                self._idle -= 1
        return True
