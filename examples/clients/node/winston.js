const winston = require("winston");
const { Syslog } = require("winston-syslog");

const log = winston.createLogger({
  levels: winston.config.syslog.levels,
  format: winston.format.json(),
  transports: [
    // Without eol nothing ends a record.
    new Syslog({ protocol: "tcp4", host: "127.0.0.1", port: 1514, type: "5424", eol: "\n", app_name: "shop" }),
  ],
});

log.info("started");
log.error("no number\nat line 12");
