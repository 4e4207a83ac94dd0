"""One thread that runs the networks of all requests in turns, so that a short text never waits for a long one."""

import asyncio
import itertools
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
_END: Any = object()  # of an iterator


class Busy(ValueError):
    """As many requests as the studio admits are in progress."""


class Job:
    """The place of one request in the studio: the seconds that its steps have taken."""

    def __init__(self, studio: "Studio"):
        self.studio = studio
        self.spent = 0.0

    async def run(self, call: Callable[..., T], *args: Any) -> T:
        """Call a function in the studio's thread. A request that is cancelled while it waits gives up its turn."""
        return await asyncio.wrap_future(self.studio.submit(self, call, *args))

    async def iterate(self, items: Iterator[T]) -> AsyncIterator[T]:
        """Yield the items of an iterator, each computed in a separate turn."""
        while (item := await self.run(next, items, _END)) is not _END:
            yield item


class Studio:
    """A thread whose next step is always one of the request that has used the least time so far.

    A step is a piece of text or a part of its audio, so a new request waits for one step at most, however much is left
    of the others. The networks always run in this thread, because PyTorch keeps memory for each thread that calls it.

    Args: `limit` is the number of requests in progress; `open` raises `Busy` for further ones.
    """

    def __init__(self, limit: int):
        self.limit, self.active = limit, 0
        self._count = itertools.count()
        self._steps: queue.PriorityQueue[Any] = queue.PriorityQueue()
        threading.Thread(target=self._work, name="studio", daemon=True).start()

    @contextmanager
    def open(self) -> Iterator[Job]:
        """Admit a request. Raises Busy if there are too many."""
        if self.active >= self.limit:
            raise Busy(f"the server is busy with {self.active} requests: try again in a few seconds")
        self.active += 1
        try:
            yield Job(self)
        finally:
            self.active -= 1

    def submit(self, job: Job, call: Callable[..., T], *args: Any) -> "Future[T]":
        """Put a step of a job in the queue."""
        future: Future[T] = Future()
        self._steps.put((job.spent, next(self._count), job, future, call, args))
        return future

    def close(self) -> None:
        """End the thread after the steps that are queued."""
        self._steps.put((float("inf"), next(self._count), None, None, None, None))

    def _work(self) -> None:
        while True:
            *_, job, future, call, args = self._steps.get()
            if job is None:
                return
            if not future.set_running_or_notify_cancel():
                continue
            begin = time.perf_counter()
            try:
                result, error = call(*args), None
            except Exception as raised:
                result, error = None, raised
            job.spent += time.perf_counter() - begin  # before the result, after which the next step may be queued
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)
            del job, future, call, args, result, error  # not kept while the thread waits
