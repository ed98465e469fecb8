package main

import (
	"log"
	"log/syslog"
	"strings"
)

func main() {
	out, err := syslog.Dial("tcp", "127.0.0.1:1514", syslog.LOG_INFO|syslog.LOG_USER, "shop")
	if err != nil {
		log.Fatal(err)
	}
	out.Info("started")
	out.Err(strings.ReplaceAll("no number\nat line 12", "\n", `\n`))
	out.Close()
}
