"""A link of its own for one node: a TCP forwarder that delays, and stalls as a lossy link does.

A node behind it is *gray*: it answers, late. What TCP makes of a lost packet is a stall: what was
lost is sent again after a time-out, which doubles, and nothing behind it arrives before.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from random import Random
from types import TracebackType
from typing import Any

CHUNK_BYTES = 1460
RETRANSMITTED_AFTER = 0.2


class Forwarder:
    """Forwards connections to `address` to another one; a context manager."""

    def __init__(self, seed: int = 1) -> None:
        self.delay = 0.0
        "Seconds, each way."
        self.loss = 0.0
        "Share of the packets that is sent again, each way."
        self.address = ""
        self._to = ""
        self._rng = Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[Any]] = set()

    def __enter__(self) -> Forwarder:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def forward(self, to: str) -> None:
        """Say where connections go."""
        self._to = to

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        host, _, port = self._to.rpartition(":")
        try:
            far, there = await asyncio.open_connection(host, int(port))
        except OSError:
            back.close()
            return
        for reader, writer in ((near, there), (far, back)):
            task = self._loop.create_task(self._pass_on(reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        sender = self._loop.create_task(self._send(queue, writer))
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                late, again = self.delay, RETRANSMITTED_AFTER
                while self._rng.random() < self.loss and again < 10:
                    late, again = late + again, again * 2
                queue.put_nowait((self._loop.time() + late, chunk))
            queue.put_nowait((0, b""))
            await sender
        except OSError:
            pass
        finally:
            sender.cancel()
            writer.close()

    async def _send(
        self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        while True:
            due, chunk = await queue.get()
            await asyncio.sleep(due - self._loop.time())
            if not chunk:
                return
            writer.write(chunk)
            await writer.drain()
