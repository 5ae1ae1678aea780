// Two tabs of headless Chromium chat on the demo's page: browser.js CHROMIUM PROFILE URL. Drives the browser over the
// DevTools protocol; the last line is `ok`.
'use strict';
const { fail, start, tab } = require('./devtools');

const [program, profile, url] = process.argv.slice(2);

const connected = `document.getElementById('status')?.textContent.trim() === 'connected'`;
const heard = (text) => `document.getElementById('log')?.textContent.includes(${JSON.stringify(text)})`;
const say = (text) => `document.getElementById('message').value = ${JSON.stringify(text)};
  document.getElementById('chat').requestSubmit();`;

async function main() {
  const call = await start(program, profile);
  const [one, two] = [await tab(call, url), await tab(call, url)];
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
