"""A backend on Python `websockets`: prints the port it listens on, runs until it is killed. --listen IP:PORT says where.

/echo        sends each message back as it came
/fragments   sends each message back in three fragments
/ping        pings, and says so when the pong is there
/close       closes at once with ?code= and ?reason=
/closed      tells how the session /echo?id=ID ended: "CODE REASON"
"""
import asyncio
import sys
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

endings = {}


def ending(id):
    return endings.setdefault(id, asyncio.get_running_loop().create_future())


async def echo(connection, fragments):
    async for message in connection:
        if fragments:
            third = len(message) // 3
            await connection.send([message[:third], message[third : 2 * third], message[2 * third :]])
        else:
            await connection.send(message)


async def handle(connection):
    url = urlsplit(connection.request.path)
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    try:
        if url.path == "/close":
            await connection.close(int(query["code"]), query.get("reason", ""))
        elif url.path == "/closed":
            await connection.send(await ending(query["id"]))
            await connection.wait_closed()
        elif url.path == "/ping":
            await (await connection.ping(b"are you there"))
            await connection.send("pong")
            await connection.wait_closed()
        else:
            await echo(connection, url.path == "/fragments")
    except ConnectionClosed:
        pass
    if "id" in query and url.path == "/echo":
        ending(query["id"]).set_result(f"{connection.close_code} {connection.close_reason}")


async def main():
    deflate = None if "--no-deflate" in sys.argv else "deflate"
    listen = sys.argv[sys.argv.index("--listen") + 1] if "--listen" in sys.argv else "127.0.0.1:0"
    ip, port = listen.split(":")
    server = serve(
        handle,
        ip,
        int(port),
        compression=deflate,
        max_size=None,
        ping_interval=None,
        subprotocols=["chat.v2", "chat"],
        select_subprotocol=lambda connection, offered: next(iter(offered), None),
    )
    async with server as running:
        print("port", running.sockets[0].getsockname()[1], flush=True)
        await running.serve_forever()


asyncio.run(main())
