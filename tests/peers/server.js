// A backend on npm `ws`: the same as server.py.
'use strict';
const { WebSocketServer } = require('ws');

const endings = new Map();

// The ending of a session, whether it is asked for before or after it came.
function ending(id) {
  if (!endings.has(id)) {
    let tell;
    const promise = new Promise((resolve) => (tell = resolve));
    endings.set(id, { promise, tell });
  }
  return endings.get(id);
}

function sendFragments(socket, data, binary) {
  const third = Math.floor(data.length / 3);
  socket.send(data.subarray(0, third), { binary, fin: false });
  socket.send(data.subarray(third, 2 * third), { binary, fin: false });
  socket.send(data.subarray(2 * third), { binary, fin: true });
}

const at = process.argv.indexOf('--listen');
const [host, port] = (at < 0 ? '127.0.0.1:0' : process.argv[at + 1]).split(':');
const server = new WebSocketServer({
  host,
  port: Number(port),
  perMessageDeflate: !process.argv.includes('--no-deflate'),
  maxPayload: 0,
  handleProtocols: (offered) => [...offered][0],
});

server.on('connection', (socket, request) => {
  const url = new URL(request.url, 'ws://backend');
  const id = url.searchParams.get('id');
  switch (url.pathname) {
    case '/close':
      socket.close(Number(url.searchParams.get('code')), url.searchParams.get('reason') ?? '');
      break;
    case '/closed':
      ending(id).promise.then((text) => socket.send(text));
      break;
    case '/ping':
      socket.on('pong', () => socket.send('pong'));
      socket.ping('are you there');
      break;
    default:
      socket.on('message', (data, binary) =>
        url.pathname === '/fragments' ? sendFragments(socket, data, binary) : socket.send(data, { binary }));
      if (id) socket.on('close', (code, reason) => ending(id).tell(`${code} ${reason}`));
  }
  socket.on('error', () => {});
});
server.on('listening', () => console.log('port', server.address().port));
