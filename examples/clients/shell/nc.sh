# OpenBSD's nc: -N ends the connection after the last line.
nc -N 127.0.0.1 1514 < app.log
