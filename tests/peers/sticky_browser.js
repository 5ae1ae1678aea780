// Pages of headless Chromium open sessions of servers that tell their names: sticky_browser.js CHROMIUM PROFILE PAGE SOCKET.
// The last line is `ok`.
'use strict';
const { fail, start, tab } = require('./devtools');

const [program, profile, page, socket] = process.argv.slice(2);

// The name of the server of a new session, which stays open.
const session = `new Promise((resolve, reject) => {
  const socket = new WebSocket(${JSON.stringify(socket)});
  socket.onmessage = (message) => resolve(message.data);
  socket.onerror = () => reject(new Error('no session'));
  (window.kept ??= []).push(socket);
})`;

async function main() {
  const call = await start(program, profile);
  const servers = new Set();
  // Each has cookies of its own.
  for (let i = 0; i < 3; i += 1) {
    const one = await tab(call, page);
    await one.until('the page', `location.href === ${JSON.stringify(page)} && document.readyState === 'complete'`);
    const first = await one.evaluate(session);
    for (let n = 0; n < 4; n += 1) {
      const next = await one.evaluate(session);
      if (next !== first) fail(`${first} first, then ${next}`);
    }
    if (await one.evaluate('document.cookie') !== '') fail('a page can read the cookie');
    servers.add(first);
  }
  if (servers.size !== 3) fail(`all went to ${[...servers]}`);
  console.log('ok');
  process.exit(0);
}

main().catch((error) => fail(error.stack));
