# bash alone, where nothing is installed.
cat app.log > /dev/tcp/127.0.0.1/1514
