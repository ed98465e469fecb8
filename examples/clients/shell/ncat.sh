ncat --send-only 127.0.0.1 1514 < app.log
