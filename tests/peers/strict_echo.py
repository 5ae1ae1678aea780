"""A strict echo for the Autobahn test suite, as its server under test and as its client under test.

    strict_echo.py server                       prints the port it listens on, runs until it is killed
    strict_echo.py client HOST:PORT AUTHORITY   runs the cases of the fuzzing server AUTHORITY, reached at HOST:PORT

Libraries give a few answers that the suite calls non-strict. This one fails on the very byte that is wrong, also inside a
frame that is not complete yet, and after it has answered all that came before.
"""
import base64
import codecs
import hashlib
import os
import socket
import struct
import sys
import threading

from websockets.speedups import apply_mask

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
AGENT = "strict-echo"


class Fault(Exception):
    """The close code, or None if the other side went away."""


class Peer:
    def __init__(self, sock, client):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(60)
        self.sock, self.client, self.held = sock, client, b""

    def some(self):
        """At least one byte, whatever is there."""
        if not self.held:
            self.held = self.sock.recv(1 << 20)
            if not self.held:
                raise Fault(None)
        out, self.held = self.held, b""
        return out

    def exactly(self, size):
        out = b""
        while len(out) < size:
            out += self.some()
        out, self.held = out[:size], out[size:]
        return out

    def head(self):
        out = b""
        while b"\r\n\r\n" not in out:
            out += self.some()
        out, self.held = out.split(b"\r\n\r\n", 1)
        lines = out.decode().split("\r\n")
        return lines[0], {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}

    def send(self, opcode, payload):
        size = len(payload)
        if size < 126:
            head = struct.pack("!BB", 0x80 | opcode, size | self.client << 7)
        elif size < 65536:
            head = struct.pack("!BBH", 0x80 | opcode, 126 | self.client << 7, size)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 127 | self.client << 7, size)
        if self.client:
            mask = os.urandom(4)
            head, payload = head + mask, apply_mask(payload, mask)
        self.sock.sendall(head + payload)

    def header(self):
        first, second = self.exactly(2)
        fin, opcode, masked, size = first >> 7, first & 15, second >> 7, second & 127
        if first & 0x70 or opcode not in (0, 1, 2, 8, 9, 10) or masked == self.client:
            raise Fault(1002)
        if opcode >= 8 and (not fin or size > 125):
            raise Fault(1002)
        if size == 126:
            (size,) = struct.unpack("!H", self.exactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self.exactly(8))
        return fin, opcode, self.exactly(4) if masked else bytes(4), size

    def payload(self, mask, size, text):
        """Collects a payload and has each piece decoded as soon as it is there."""
        parts, got = [], 0
        while got < size:
            piece = self.some()
            piece, self.held = piece[: size - got], piece[size - got :]
            turn = got % 4
            piece = apply_mask(piece, mask[turn:] + mask[:turn])
            got += len(piece)
            parts.append(piece)
            if text is not None:
                decode(text, piece, False)
        return b"".join(parts)

    def echo_messages(self):
        kind, parts, text = None, [], None
        while True:
            fin, opcode, mask, size = self.header()
            if opcode >= 8:
                payload = self.payload(mask, size, None)
                if opcode == CLOSE:
                    return self.answer_close(payload)
                if opcode == PING:
                    self.send(PONG, payload)
                continue
            if (opcode == CONTINUATION) != (kind is not None):
                raise Fault(1002)
            if opcode != CONTINUATION:
                kind, parts = opcode, []
                text = codecs.getincrementaldecoder("utf-8")() if opcode == TEXT else None
            parts.append(self.payload(mask, size, text))
            if fin:
                if text is not None:
                    decode(text, b"", True)
                self.send(kind, b"".join(parts))
                kind = None

    def answer_close(self, payload):
        if payload:
            code = int.from_bytes(payload[:2], "big")
            if len(payload) == 1 or not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
                raise Fault(1002)
            decode(codecs.getincrementaldecoder("utf-8")(), payload[2:], True)
        self.send(CLOSE, payload[:2])

    def run(self):
        try:
            self.echo_messages()
        except Fault as fault:
            if fault.args[0] is None:
                return
            self.send(CLOSE, struct.pack("!H", fault.args[0]))
        # The server closes first (RFC 6455, 7.1.1); a client waits for that.
        if not self.client:
            self.sock.shutdown(socket.SHUT_WR)
        while self.sock.recv(1 << 16):
            pass


def decode(decoder, piece, final):
    try:
        decoder.decode(piece, final)
    except UnicodeDecodeError:
        raise Fault(1007) from None


def serve(sock):
    with sock:
        try:
            peer = Peer(sock, client=False)
            _, fields = peer.head()
            accept = base64.b64encode(hashlib.sha1(fields["sec-websocket-key"].encode() + GUID).digest()).decode()
            sock.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                + f"Server: {AGENT}\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode()
            )
            peer.run()
        except (OSError, Fault):
            pass


def server():
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        print("port", listener.getsockname()[1], flush=True)
        while True:
            threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()


def open(address, authority, target):
    host, port = address.rsplit(":", 1)
    peer = Peer(socket.create_connection((host, int(port))), client=True)
    peer.sock.sendall(
        f"GET {target} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    status, _ = peer.head()
    if " 101 " not in status:
        sys.exit(f"{target}: {status}")
    return peer


def client(address, authority):
    peer = open(address, authority, "/getCaseCount")
    with peer.sock:
        count = int(peer.payload(*peer.header()[2:], None))
    for case in range(1, count + 1):
        peer = open(address, authority, f"/runCase?case={case}&agent={AGENT}")
        with peer.sock:
            try:
                peer.run()
            except OSError:
                pass
    peer = open(address, authority, f"/updateReports?agent={AGENT}")
    with peer.sock:
        peer.run()
    print("ok", count)


if sys.argv[1] == "server":
    server()
else:
    client(*sys.argv[2:])
