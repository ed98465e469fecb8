const log = require("gelf-pro");

log.setConfig({ adapterName: "tcp", adapterOptions: { host: "127.0.0.1", port: 1514 } });

log.info("started");
log.error("no number\nat line 12");
