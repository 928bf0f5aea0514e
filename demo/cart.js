'use strict';
// The shop's cart. It asks the stock service twice for a cart, the second time from the end of the first answer; each request goes out in the same turn of the event loop
// as what caused it, and to an address, so that no name is looked up in between.
// Paths: /cart/ID, /slow/ID?ms=, /fail/ID. With SHOP_TRUTH_DIR set, a line of JSON a request says which calls it made.
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');

process.title = 'cart';
const HOST = '127.0.0.1';
const STOCK_PORT = Number(process.env.SHOP_STOCK_PORT);
const agent = new http.Agent({ keepAlive: true, maxFreeSockets: 8 });
const truth = process.env.SHOP_TRUTH_DIR ? fs.openSync(path.join(process.env.SHOP_TRUTH_DIR, 'cart.jsonl'), 'a') : -1;

function askStock(resource, calls, done) {
  const call = { peer: 'stock', type: 'GET', resource, error: false };
  calls.push(call);
  const request = http.request({ host: HOST, port: STOCK_PORT, path: resource, agent }, (answer) => {
    let body = '';
    answer.setEncoding('utf8');
    answer.on('data', (chunk) => { body += chunk; });
    answer.on('end', () => {
      call.error = answer.statusCode >= 400;
      if (call.error) done(new Error(`stock answered ${answer.statusCode}`));
      else done(null, JSON.parse(body));
    });
  });
  request.on('error', (error) => {
    call.error = true;
    done(error);
  });
  request.end();
}

const server = http.createServer((request, response) => {
  const started = Date.now();
  const calls = [];
  const reply = (status, value) => {
    if (truth >= 0) {
      fs.writeSync(truth, JSON.stringify({
        service: 'cart', method: request.method, path: request.url, status, calls, start_us: started * 1000, end_us: Date.now() * 1000, pid: process.pid,
      }) + '\n');
    }
    const body = JSON.stringify(value);
    response.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) });
    response.end(body);
  };
  const [, what, rest = ''] = request.url.split('/');
  if (what === 'cart') {
    askStock(`/reserve/${rest}`, calls, (error, reserved) => {
      if (error) return reply(502, { error: error.message });
      return askStock(`/price/${rest}`, calls, (failure, priced) => {
        if (failure) return reply(502, { error: failure.message });
        return reply(200, { reserved: reserved.reserved, price: priced.price });
      });
    });
  } else if (what === 'slow' || what === 'fail') {
    askStock(`/${what}/${rest}`, calls, (error, answer) => (error ? reply(502, { error: error.message }) : reply(200, answer)));
  } else {
    reply(404, { error: 'the cart has /cart/ID, /slow/ID and /fail/ID' });
  }
});
server.keepAliveTimeout = 600_000; // the callers' pools keep connections as long as the shop lives
server.listen({ host: HOST, port: Number(process.env.SHOP_CART_PORT), backlog: 1024 });
process.on('SIGTERM', () => process.exit(0));
