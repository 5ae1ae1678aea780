"""The Autobahn test suite's client under test, with permessage-deflate: autobahn_client.py HOST:PORT AUTHORITY

Runs the cases of the fuzzing server AUTHORITY, reached at HOST:PORT. On Python `websockets`.
"""
import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

address, authority = sys.argv[1:]
AGENT = "websockets"


def open(target):
    host, port = address.rsplit(":", 1)
    return connect(f"ws://{authority}{target}", host=host, port=int(port), max_size=None, ping_interval=None)


async def main():
    async with open("/getCaseCount") as connection:
        count = int(await connection.recv())
    for case in range(1, count + 1):
        async with open(f"/runCase?case={case}&agent={AGENT}") as connection:
            try:
                async for message in connection:
                    await connection.send(message)
            except ConnectionClosed:
                pass
    async with open(f"/updateReports?agent={AGENT}") as connection:
        await connection.wait_closed()
    print("ok", count)


asyncio.run(main())
