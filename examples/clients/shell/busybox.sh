busybox nc 127.0.0.1 1514 < app.log
