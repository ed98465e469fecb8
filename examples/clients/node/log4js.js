const log4js = require("log4js");

log4js.configure({
  appenders: {
    ingest: {
      type: "tcp",
      host: "127.0.0.1",
      port: 1514,
      endMsg: "\n", // instead of __LOG4JS__
      layout: { type: "pattern", pattern: "%d{ISO8601_WITH_TZ_OFFSET} %p %c %x{line}", tokens: { line } },
    },
  },
  categories: { default: { appenders: ["ingest"], level: "info" } },
});

function line(event) {
  return event.data.join(" ").replaceAll("\n", "\\n");
}

const log = log4js.getLogger("shop");
log.info("started");
log.error("no number\nat line 12");
log4js.shutdown();
