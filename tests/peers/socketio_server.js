// A socket.io backend: socketio_server.js NAME PING_MS. Echoes, broadcasts, and says who it is.
'use strict';
const { createServer } = require('http');
const { Server } = require('socket.io');

const [name, pingInterval] = process.argv.slice(2);
const http = createServer();
const io = new Server(http, { pingInterval: Number(pingInterval) });

// A poll of this client has come and waits.
function pending(socket) {
  if (socket.conn.transport.writable) console.log('pending');
  else setTimeout(pending, 10, socket);
}

io.on('connection', (socket) => {
  socket.emit('hello', name);
  socket.on('echo', (data, done) => done(data));
  socket.on('shout', (text) => io.emit('heard', text));
  socket.on('transport', (done) => done(socket.conn.transport.name));
  socket.on('vanish', () => pending(socket));
  socket.on('disconnect', (reason) => console.log('disconnect', reason));
});
http.listen(0, '127.0.0.1', () => console.log('port', http.address().port));
