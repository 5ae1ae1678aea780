"""A client on Python `websockets`: runs every check against the backend behind URL; the last line is `ok N`."""
import asyncio
import itertools
import sys
from urllib.parse import quote

from websockets.asyncio.client import connect

SIZES = [0, 1, 125, 126, 127, 128, 1000, 65535, 65536, 1 << 20]
BIG = 16 << 20
CODES = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]

url = sys.argv[1]
deflate = None if "--no-deflate" in sys.argv else "deflate"
ids = itertools.count(1)
checks = 0


def check(wanted, got, what):
    global checks
    checks += 1
    if wanted != got:
        sys.exit(f"{what}: wanted {str(wanted)[:200]!r}, got {str(got)[:200]!r}")


def open(path, **options):
    return connect(url + path, compression=deflate, max_size=None, ping_interval=None, open_timeout=20, **options)


def binary(size):
    # Neither constant nor incompressible.
    return bytes((i * i >> 3) & 0xFF for i in range(min(size, 4096))) * (size // 4096 + 1)


async def messages():
    for path in ["/echo", "/fragments"]:
        async with open(path) as connection:
            for size in SIZES:
                text = "aß€😀" * (size // 4) + "x" * (size % 4)
                await connection.send(text)
                check(text, await connection.recv(), f"text of {size} on {path}")
                data = binary(size)[:size]
                await connection.send(data)
                check(data, await connection.recv(), f"binary of {size} on {path}")
            data = binary(BIG)[:BIG]
            await connection.send(data)
            check(True, data == await connection.recv(), f"binary of {BIG} on {path}")


async def fragments():
    async with open("/echo") as connection:
        for sizes in [(1, 1), (0, 5, 0), (125, 126, 65536), (1000,) * 50]:
            parts = [binary(size)[:size] for size in sizes]
            await connection.send(parts)
            check(b"".join(parts), await connection.recv(), f"fragments of {sizes}")
            await connection.send(["ä" * size for size in sizes])
            check("ä" * sum(sizes), await connection.recv(), f"text fragments of {sizes}")


async def pings():
    async with open("/echo") as connection:
        for size in [0, 1, 125]:
            await (await connection.ping(binary(size)[:size]))
            check(True, True, "ping")
    async with open("/ping") as connection:
        check("pong", await connection.recv(), "ping from the backend")


async def closes():
    for code in CODES:
        reason = f"reason ü {code}"
        id = f"python-{next(ids)}"
        async with open(f"/echo?id={id}") as connection:
            await connection.close(code, reason)
            check((code, reason), (connection.close_code, connection.close_reason), f"own close {code}")
        async with open(f"/closed?id={id}") as connection:
            check(f"{code} {reason}", await connection.recv(), f"close {code} at the backend")
        async with open(f"/close?code={code}&reason={quote(reason)}") as connection:
            await connection.wait_closed()
            check((code, reason), (connection.close_code, connection.close_reason), f"close {code} from the backend")


async def subprotocols():
    for offered, wanted in [(["chat.v2", "chat"], "chat.v2"), (["chat"], "chat"), (None, None)]:
        async with open("/echo", subprotocols=offered) as connection:
            check(wanted, connection.subprotocol, f"subprotocol of {offered}")


async def main():
    for part in [messages, fragments, pings, closes, subprotocols]:
        await asyncio.wait_for(part(), 120)
    print("ok", checks)


asyncio.run(main())
