const pino = require("pino");

const log = pino(
  pino.transport({ target: "pino-socket", options: { address: "127.0.0.1", port: 1514, mode: "tcp" } }),
);

log.info("started");
log.error("no number\nat line 12");
