# One message; --octet-count keeps an LF in it.
logger --tcp --server 127.0.0.1 --port 1514 --tag shop "started"
logger --tcp --server 127.0.0.1 --port 1514 --tag shop --octet-count "counted"
