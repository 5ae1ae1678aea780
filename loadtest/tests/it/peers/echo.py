"""An echo server on the Python package `websockets`; prints its port. Mode `retype` answers text as binary."""

import asyncio
import logging
import sys

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

MODE = sys.argv[1]
# Clients of these tests break connections on purpose: what that does to a handshake is no news.
logging.getLogger("websockets").setLevel(logging.CRITICAL)


async def echo(connection):
    try:
        async for message in connection:
            if MODE == "retype" and isinstance(message, str):
                message = message.encode()
            await connection.send(message)
    except ConnectionClosed:
        pass


def select(connection, offered):
    return "chat" if "chat" in offered else None


async def main():
    options = {"max_size": 64 << 20, "compression": None, "select_subprotocol": select}
    async with serve(echo, "127.0.0.1", 0, **options) as server:
        print(f"listening on port:{server.sockets[0].getsockname()[1]}", flush=True)
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
