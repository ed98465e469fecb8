socat -u FILE:app.log TCP:127.0.0.1:1514
