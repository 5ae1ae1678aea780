// A backend that tells each session its name, and serves an empty page: named_server.js NAME.
'use strict';
const { createServer } = require('http');
const { WebSocketServer } = require('ws');

const http = createServer((request, response) => {
  response.setHeader('Content-Type', 'text/html');
  response.end('<!doctype html><title>empty</title>');
});
new WebSocketServer({ server: http }).on('connection', (socket) => {
  socket.on('error', () => {});
  socket.send(process.argv[2]);
});
http.listen(0, '127.0.0.1', () => console.log('port', http.address().port));
