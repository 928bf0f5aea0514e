"use strict";
// A Tars server and its client: `node tars.js server PORT`, `node tars.js client PORT`.
const { server, client, error } = require("@tars/rpc");
const { TarsOutputStream, TarsInputStream } = require("@tars/stream");

const servant = "Live.OrderServer.OrderObj";
const [role, port] = process.argv.slice(2);
const endpoint = `tcp -h 127.0.0.1 -p ${port} -t 10000`;

function text(value) {
  const out = new TarsOutputStream();
  out.writeString(1, value);
  return out.getBinBuffer();
}

function Orders() {}
Orders.prototype.initialize = function () {};
Orders.prototype.onDispatch = function (current, name, body) {
  if (name === "hello") {
    const who = new TarsInputStream(body).readString(1, true);
    const out = new TarsOutputStream();
    out.writeInt32(0, 0);
    out.writeString(1, `hello ${who}`);
    current.doResponse(out.getBinBuffer());
    return error.SUCCESS;
  }
  return name === "note" ? error.SUCCESS : error.SERVER.FUNC_NOT_FOUND;
};

function Proxy() {
  this._name = undefined;
  this._worker = undefined;
}

async function calls() {
  const proxy = client.stringToProxy(Proxy, `${servant}@${endpoint}`);
  proxy._worker.timeout = 30000; // a server that stands still for a while (holds.py) is waited for
  const call = (name, options) => proxy._worker.tars_invoke(name, text("world"), options);
  for (let i = 0; i < 10; i++) {
    await call("hello", {
      context: { traceparent: `00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333${i}-01` },
    });
  }
  let code = 0;
  try {
    await call("missing");
  } catch (refused) {
    code = refused.error ? refused.error.code : refused.response.error.code;
  }
  call("note", { packetType: 1 });
  setTimeout(() => {
    console.log(JSON.stringify({ code }));
    process.exit(0);
  }, 500);
}

if (role === "server") {
  const adapter = new server.BindAdapterOption();
  server.createServer().start(Object.assign(adapter, { endpoint, name: `${servant}Adapter`, servant, handleImp: Orders }));
} else {
  calls();
}
