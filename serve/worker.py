"""A process that answers: uvicorn around the application, until a signal or its parent's end."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import warnings
from collections.abc import Callable

import uvicorn

from .app import create_app
from .connection import prompt_connections
from .counts import Counts
from .door import Door
from .model import Open, open_model
from .service import Service
from .settings import Settings, shutdown_s


def serve(
    opened: Open,
    settings: Settings,
    counts: Counts,
    listener: socket.socket,
    ready: Callable[[], None],
    alive: int,
) -> int:
    """Answer until SIGTERM; SIGHUP lets the bundle be opened afresh.

    Args:
        opened: Loads the bundle.
        settings: The limits.
        counts: What is counted, with this process' row chosen.
        listener: The port, which other processes may share.
        ready: Called as the first connection can be taken.
        alive: A file descriptor that ends with the parent, and with it this process.

    Returns:
        The exit code.

    Raises:
        EdgeclsError: The bundle cannot be opened, or differs on this machine.
    """
    # Damaged images are answered with 422, what is no HTTP at all with 400; neither fills the log.
    warnings.filterwarnings("ignore", module="PIL")
    for library, level in (
        ("uvicorn.error", logging.ERROR),
        ("python_multipart", logging.ERROR),
        ("PIL", logging.CRITICAL),
    ):
        logging.getLogger(library).setLevel(level)
    service = Service(open_model(opened), settings, counts)
    door = Door(listener, counts)
    server = _Server(
        uvicorn.Config(
            create_app(service),
            loop="asyncio",
            http=prompt_connections(settings.timeout_s, door.leave),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=shutdown_s(settings),
        ),
        door,
        ready,
    )
    asyncio.run(_run(server, service, opened, alive))
    return 0


async def _run(server: _Server, service: Service, opened: Open, alive: int) -> None:
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()
    one_at_a_time = asyncio.Lock()

    async def reload_in_turn() -> None:
        async with one_at_a_time:
            await service.reload(opened)

    def reload() -> None:
        if len(reloads) < 2:  # the one that waits will read what is there then
            task = loop.create_task(reload_in_turn())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

    def orphaned() -> None:
        loop.remove_reader(alive)
        server.should_exit = True

    loop.add_signal_handler(signal.SIGHUP, reload)
    loop.add_reader(alive, orphaned)
    await server.serve()


class _Server(uvicorn.Server):
    """uvicorn, whose connections come through the door."""

    def __init__(self, config: uvicorn.Config, door: Door, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._door = door
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections."""
        del sockets
        await super().startup(sockets=[])

        def connection() -> asyncio.Protocol:
            return self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )

        self._door.open(connection)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and answer what came."""
        del sockets
        await self._door.close()
        await super().shutdown(sockets=[])

    def handle_exit(self, sig: int, frame: object) -> None:
        """End in order, however often it is asked: a terminal's SIGINT comes here too."""
        del sig, frame
        self.should_exit = True
