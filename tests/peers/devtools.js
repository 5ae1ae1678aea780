// Headless Chromium over the DevTools protocol, for the programs beside this one.
'use strict';
const { spawn } = require('child_process');
const WebSocket = require('ws');

const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'];

function fail(message) {
  console.error(message);
  process.exit(1);
}

function devtools(browser) {
  return new Promise((resolve) => {
    let text = '';
    browser.stderr.on('data', (data) => {
      text += data;
      const found = /DevTools listening on (ws:\S+)/.exec(text);
      if (found) resolve(found[1]);
    });
    browser.on('exit', (code) => fail(`the browser ended with ${code}: ${text}`));
  });
}

// Returns a function that calls a method of the protocol. The browser ends with this process.
async function start(program, profile) {
  // Also if this process is killed, as those of a test are at its end.
  const until = ['--pdeathsig', 'KILL', '--', program];
  const browser = spawn('setpriv',
    [...until, ...FLAGS, `--user-data-dir=${profile}`, '--remote-debugging-port=0', 'about:blank'],
    { stdio: ['ignore', 'ignore', 'pipe'] });
  process.on('exit', () => browser.kill('SIGKILL'));
  setTimeout(() => fail('the browser takes too long'), 60000).unref();
  const socket = new WebSocket(await devtools(browser));
  await new Promise((resolve, reject) => socket.on('open', resolve).on('error', reject));
  const waiting = new Map();
  let id = 0;
  socket.on('message', (data) => {
    const message = JSON.parse(data);
    waiting.get(message.id)?.(message);
  });
  return (method, params = {}, sessionId) => new Promise((resolve) => {
    socket.send(JSON.stringify({ id: (id += 1), method, params, sessionId }));
    waiting.set(id, (message) => (message.error ? fail(`${method}: ${message.error.message}`) : resolve(message.result)));
  });
}

// A tab with cookies and storage of its own.
async function tab(call, url) {
  const { browserContextId } = await call('Target.createBrowserContext');
  const { targetId } = await call('Target.createTarget', { url, browserContextId });
  const { sessionId } = await call('Target.attachToTarget', { targetId, flatten: true });
  const evaluate = async (expression) => {
    const answer = await call('Runtime.evaluate', { expression, returnByValue: true, awaitPromise: true }, sessionId);
    if (answer.exceptionDetails) fail(JSON.stringify(answer.exceptionDetails));
    return answer.result.value;
  };
  return {
    evaluate,
    close: () => call('Target.closeTarget', { targetId }),
    until: async (what, expression) => {
      for (let i = 0; i < 300; i += 1) {
        if (await evaluate(`Boolean(${expression})`)) return;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      fail(`${what}: never; the page says ${await evaluate('document.body && document.body.innerText')}`);
    },
  };
}

module.exports = { fail, start, tab };
