"""Sessions on Python `websockets` that last: URL, how many, --no-deflate or not.

Each sends numbered messages of a known pattern, and checks what comes back. Says `open N` once all are open. SIGTERM ends
them in order; the last line is then `ok MESSAGES`. A session that ends by itself, or one wrong byte, ends all with 1.
"""
import asyncio
import os
import signal
import sys

from websockets.asyncio.client import connect

SIZES = [0, 1, 50, 125, 126, 500, 4096, 70000]
PAUSE = 0.1


def message(session, number):
    head = f"{session} {number} "
    size = SIZES[(session + number) % len(SIZES)]
    body = "".join(chr(33 + (session * 7 + number + at) % 90) for at in range(min(size, 200)))
    return (head + body * (size // 200 + 1))[: len(head) + size]


async def talk(url, session, deflate, started, stopping):
    count = 0
    async with connect(url, compression=deflate, max_size=None, ping_interval=None, proxy=None) as connection:
        started()
        while not stopping.is_set():
            sent = message(session, count)
            if count % 2:
                sent = sent.encode()
            await connection.send(sent)
            if await connection.recv() != sent:
                raise Exception(f"session {session}: message {count} came back altered")
            count += 1
            await asyncio.sleep(PAUSE)
    if connection.close_code != 1000:
        raise Exception(f"session {session}: closed with {connection.close_code}")
    return count


async def main():
    url, sessions = sys.argv[1], int(sys.argv[2])
    deflate = None if "--no-deflate" in sys.argv else "deflate"
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    opened = 0

    def started():
        nonlocal opened
        opened += 1
        if opened == sessions:
            print("open", opened, flush=True)

    tasks = [asyncio.create_task(talk(url, session, deflate, started, stopping)) for session in range(sessions)]
    try:
        print("ok", sum(await asyncio.gather(*tasks)), flush=True)
    except BaseException as error:
        # Without waiting for the others.
        print("LOST", repr(error), flush=True)
        os._exit(1)


asyncio.run(main())
