require "logger"
require "socket"

log = Logger.new(TCPSocket.new("127.0.0.1", 1514))
log.formatter = proc { |severity, time, _, message| "#{time.utc.strftime('%FT%T.%6NZ')} #{severity} #{message.to_s.gsub("\n", '\n')}\n" }

log.info("started")
log.error("no number\nat line 12")
