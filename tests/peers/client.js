// A client on npm `ws`: the same checks as client.py; the last line is `ok N`.
'use strict';
const WebSocket = require('ws');

const SIZES = [0, 1, 125, 126, 127, 128, 1000, 65535, 65536, 1 << 20];
const BIG = 16 << 20;
const CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999];

const base = process.argv[2];
const perMessageDeflate = !process.argv.includes('--no-deflate');
let checks = 0;
let ids = 0;

function check(holds, what) {
  checks += 1;
  if (!holds) throw new Error(what);
}

// An open socket whose messages and end can be awaited.
async function open(path, protocols = []) {
  const socket = new WebSocket(base + path, protocols, { perMessageDeflate, maxPayload: 0 });
  const queue = [];
  let wake = () => {};
  const put = (item) => (queue.push(item), wake());
  socket.on('message', (data, binary) => put({ data, binary }));
  socket.on('pong', (data) => put({ data, pong: true }));
  socket.on('close', (code, reason) => put({ code, reason: reason.toString() }));
  socket.next = async () => {
    while (queue.length === 0) await new Promise((resolve) => (wake = resolve));
    return queue.shift();
  };
  await new Promise((resolve, reject) => socket.on('open', resolve).on('error', reject));
  return socket;
}

async function finish(socket) {
  socket.close(1000);
  check((await socket.next()).code === 1000, 'close 1000');
}

function bytes(size) {
  const data = Buffer.allocUnsafe(size);
  for (let i = 0; i < size; i += 1) data[i] = ((i % 4096) ** 2) >> 3;
  return data;
}

async function expect(socket, wanted, binary, what) {
  const got = await socket.next();
  check(got.binary === binary && wanted.equals(got.data), what);
}

async function messages() {
  for (const path of ['/echo', '/fragments']) {
    const socket = await open(path);
    for (const size of SIZES) {
      const text = Buffer.from('aß€😀'.repeat(size / 4) + 'x'.repeat(size % 4));
      socket.send(text, { binary: false });
      await expect(socket, text, false, `text of ${size} on ${path}`);
      socket.send(bytes(size));
      await expect(socket, bytes(size), true, `binary of ${size} on ${path}`);
    }
    socket.send(bytes(BIG));
    await expect(socket, bytes(BIG), true, `binary of ${BIG} on ${path}`);
    await finish(socket);
  }
}

async function fragments() {
  const socket = await open('/echo');
  for (const sizes of [[1, 1], [0, 5, 0], [125, 126, 65536], Array(50).fill(1000)]) {
    const parts = sizes.map(bytes);
    parts.forEach((part, i) => socket.send(part, { fin: i === parts.length - 1 }));
    await expect(socket, Buffer.concat(parts), true, `fragments of ${sizes}`);
    const texts = sizes.map((size) => Buffer.from('ä'.repeat(size)));
    texts.forEach((part, i) => socket.send(part, { binary: false, fin: i === texts.length - 1 }));
    await expect(socket, Buffer.concat(texts), false, `text fragments of ${sizes}`);
  }
  await finish(socket);
}

async function pings() {
  const socket = await open('/echo');
  for (const size of [0, 1, 125]) {
    socket.ping(bytes(size));
    const got = await socket.next();
    check(got.pong && bytes(size).equals(got.data), `ping of ${size}`);
  }
  await finish(socket);
  const pinged = await open('/ping');
  check((await pinged.next()).data.toString() === 'pong', 'ping from the backend');
  await finish(pinged);
}

async function closes() {
  for (const code of CODES) {
    const reason = `reason ü ${code}`;
    const id = `node-${(ids += 1)}`;
    const own = await open(`/echo?id=${id}`);
    own.close(code, reason);
    const end = await own.next();
    check(end.code === code, `own close ${code} came back as ${end.code}`);
    const asking = await open(`/closed?id=${id}`);
    const told = (await asking.next()).data.toString();
    check(told === `${code} ${reason}`, `close ${code} at the backend was ${told}`);
    await finish(asking);
    const closed = await (await open(`/close?code=${code}&reason=${encodeURIComponent(reason)}`)).next();
    check(closed.code === code && closed.reason === reason, `close ${code} from the backend was ${closed.code} ${closed.reason}`);
  }
}

async function subprotocols() {
  for (const [offered, wanted] of [[['chat.v2', 'chat'], 'chat.v2'], [['chat'], 'chat'], [[], '']]) {
    const socket = await open('/echo', offered);
    check(socket.protocol === wanted, `subprotocol of ${offered}`);
    await finish(socket);
  }
}

async function main() {
  setTimeout(() => { throw new Error(`stuck after ${checks} checks`); }, 120000).unref();
  for (const part of [messages, fragments, pings, closes, subprotocols]) await part();
  console.log('ok', checks);
}

main().catch((error) => { console.error(error.message); process.exit(1); });
