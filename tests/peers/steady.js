// Sessions on npm `ws` that last: the same as steady.py.
'use strict';
const WebSocket = require('ws');

const SIZES = [0, 1, 50, 125, 126, 500, 4096, 70000];
const PAUSE = 100;

const [url, count] = [process.argv[2], Number(process.argv[3])];
const perMessageDeflate = !process.argv.includes('--no-deflate');
let [opened, messages, ended, stopping] = [0, 0, 0, false];

function lost(why) {
  console.log('LOST', why);
  process.exit(1);
}

function message(session, number) {
  const head = Buffer.from(`${session} ${number} `);
  const body = Buffer.alloc(SIZES[(session + number) % SIZES.length]);
  for (let i = 0; i < body.length; i += 1) body[i] = 33 + (session * 7 + number + i) % 90;
  return Buffer.concat([head, body]);
}

function talk(session) {
  const socket = new WebSocket(url, { perMessageDeflate, maxPayload: 0 });
  let number = 0;
  let sent;
  const next = () => {
    if (stopping) return socket.close(1000);
    sent = message(session, number);
    socket.send(sent, { binary: number % 2 === 1 });
  };
  socket.on('open', () => {
    opened += 1;
    if (opened === count) console.log('open', opened);
    next();
  });
  socket.on('message', (data, binary) => {
    if (!sent.equals(data) || binary !== (number % 2 === 1)) lost(`session ${session}: message ${number} came back altered`);
    number += 1;
    messages += 1;
    setTimeout(next, PAUSE);
  });
  socket.on('error', (error) => lost(`session ${session}: ${error.message}`));
  socket.on('close', (code) => {
    if (!stopping || code !== 1000) lost(`session ${session}: closed with ${code}`);
    ended += 1;
    if (ended < count) return;
    console.log('ok', messages);
    process.exit(0);
  });
}

process.on('SIGTERM', () => { stopping = true; });
for (let session = 0; session < count; session += 1) talk(session);
