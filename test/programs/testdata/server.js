// SPDX-License-Identifier: Apache-2.0
// A web server by Node's http: echoes bodies, sends events, and upgrades to plain bytes.
const http = require('node:http');

const server = http.createServer((request, response) => {
  if (request.url === '/events') {
    response.writeHead(200, 'Fine', { 'Content-Type': 'text/event-stream' });
    response.write('data: 1\n\n');
    setImmediate(() => response.end('data: 2\n\n'));
    return;
  }
  if (request.url === '/hints') response.writeEarlyHints({ link: '</style.css>; rel=preload' });
  response.setHeader('X-Method', request.method);
  request.pipe(response);
});
server.on('upgrade', (request, socket, head) => {
  socket.on('error', () => {});
  socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n');
  socket.write(head);
  socket.pipe(socket);
});
server.listen(Number(process.argv[2]), '0.0.0.0');
