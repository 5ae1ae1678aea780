// Two tabs of headless Chromium chat on the demo's page: browser.js CHROMIUM PROFILE URL. Drives the browser over the
// DevTools protocol; the last line is `ok`.
'use strict';
const { spawn } = require('child_process');
const WebSocket = require('ws');

const [program, profile, url] = process.argv.slice(2);
const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'];

const browser = spawn(program, [...FLAGS, `--user-data-dir=${profile}`, '--remote-debugging-port=0', 'about:blank'],
  { stdio: ['ignore', 'ignore', 'pipe'] });
process.on('exit', () => browser.kill('SIGKILL'));
setTimeout(() => fail('the browser takes too long'), 60000).unref();

function fail(message) {
  console.error(message);
  process.exit(1);
}

function devtools() {
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

async function connect() {
  const socket = new WebSocket(await devtools());
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
async function tab(call) {
  const { browserContextId } = await call('Target.createBrowserContext');
  const { targetId } = await call('Target.createTarget', { url, browserContextId });
  const { sessionId } = await call('Target.attachToTarget', { targetId, flatten: true });
  const evaluate = async (expression) => {
    const answer = await call('Runtime.evaluate', { expression, returnByValue: true }, sessionId);
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

const connected = `document.getElementById('status')?.textContent.trim() === 'connected'`;
const heard = (text) => `document.getElementById('log')?.textContent.includes(${JSON.stringify(text)})`;
const say = (text) => `document.getElementById('message').value = ${JSON.stringify(text)};
  document.getElementById('chat').requestSubmit();`;

async function main() {
  const call = await connect();
  const [one, two] = [await tab(call), await tab(call)];
  await one.until('the first tab connects', connected);
  await two.until('the second tab connects', connected);
  for (const [from, to, text] of [[one, two, 'hello <b>two</b> ✓'], [two, one, 'hello one'], [one, two, 'x'.repeat(5000)]]) {
    await from.evaluate(say(text));
    await to.until(`"${text.slice(0, 20)}" arrives`, heard(text));
    await from.until(`"${text.slice(0, 20)}" comes back`, heard(text));
  }
  if (await two.evaluate(`document.querySelector('#log b') !== null`)) fail('text became markup');
  await two.close();
  await one.evaluate(say('still here'));
  await one.until('the other goes on', heard('still here'));
  console.log('ok');
  process.exit(0);
}

main().catch((error) => fail(error.stack));
