// Clients on npm `socket.io-client`: socketio_client.js URL CASE. The last line is `ok`.
'use strict';
const { io } = require('socket.io-client');

const [url, name] = process.argv.slice(2);
const CLIENTS = 6;

function check(holds, what) {
  if (!holds) throw new Error(what);
}

function once(socket, event) {
  return new Promise((resolve) => socket.once(event, resolve));
}

async function open(options = {}) {
  const socket = io(url, { forceNew: true, reconnection: false, ...options });
  const hello = once(socket, 'hello');
  const failed = new Promise((_, reject) => socket.once('connect_error', reject));
  await Promise.race([once(socket, 'connect'), failed]);
  socket.disconnected_by = new Promise((resolve) => socket.once('disconnect', resolve));
  socket.server = await hello;
  return socket;
}

async function talk(sockets, size) {
  for (const socket of sockets) {
    for (const data of ['text ß€😀', 'x'.repeat(size), Buffer.alloc(size, 7), { deep: [1, Buffer.from('b')] }]) {
      const back = await socket.emitWithAck('echo', data);
      check(JSON.stringify(back) === JSON.stringify(data), `echo of ${JSON.stringify(data).slice(0, 40)}`);
    }
    const heard = Promise.all(sockets.map((other) => once(other, 'heard')));
    socket.emit('shout', socket.id);
    check((await heard).every((text) => text === socket.id), 'everybody hears');
  }
}

// Pings of the server have gone through: the session outlives many polls.
async function lives(socket) {
  for (let pings = 0; pings < 3; pings += 1) await new Promise((resolve) => socket.io.engine.once('ping', resolve));
}

async function end(socket) {
  socket.disconnect();
  check((await socket.disconnected_by) === 'io client disconnect', 'its own disconnect');
}

async function upgraded(socket) {
  const { engine } = socket.io;
  if (engine.transport.name !== 'websocket') await new Promise((resolve) => engine.once('upgrade', resolve));
  check((await socket.emitWithAck('transport')) === 'websocket', 'the server has upgraded');
}

const CASES = {
  // Polling first, then an upgrade to WebSocket: the defaults.
  async upgrade() {
    const sockets = await Promise.all(Array.from({ length: CLIENTS }, () => open()));
    await talk(sockets, 1000);
    await Promise.all(sockets.map(upgraded));
    await talk(sockets, 100000);
    await lives(sockets[0]);
    await Promise.all(sockets.map(end));
  },

  async polling() {
    const transports = ['polling'];
    const sockets = await Promise.all(Array.from({ length: CLIENTS }, () => open({ transports })));
    await talk(sockets, 1000);
    await talk(sockets, 100000);
    await lives(sockets[0]);
    for (const socket of sockets) check((await socket.emitWithAck('transport')) === 'polling', 'still polling');
    await Promise.all(sockets.map(end));
  },

  async websocket() {
    const sockets = await Promise.all(Array.from({ length: CLIENTS }, () => open({ transports: ['websocket'] })));
    await talk(sockets, 100000);
    await Promise.all(sockets.map(end));
  },

  // Several backends that know nothing of one another: a cookie holds each client to its own. Node has no cookie jar, but
  // the client has one for `withCredentials`.
  async sticky() {
    for (const transports of [['polling'], ['polling', 'websocket']]) {
      const servers = new Set();
      for (let i = 0; i < CLIENTS; i += 1) {
        const socket = await open({ withCredentials: true, transports });
        servers.add(socket.server);
        for (let n = 0; n < 10; n += 1) check((await socket.emitWithAck('echo', n)) === n, 'echo');
        if (transports.length > 1) await upgraded(socket);
        await lives(socket);
        await end(socket);
      }
      check(servers.size > 1, `all clients went to ${[...servers]}`);
    }
  },

  // To be killed in the middle of a poll.
  async vanish() {
    (await open({ transports: ['polling'] })).emit('vanish');
    await new Promise(() => {});
  },
};

setTimeout(() => { console.error('stuck'); process.exit(1); }, 60000).unref();
CASES[name]().then(() => { console.log('ok'); process.exit(0); }, (error) => {
  console.error(error);
  process.exit(1);
});
