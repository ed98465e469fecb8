"""How each server is started: on a loopback port, into one file, with what else it needs in a folder of its own."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

HERE = os.path.dirname(os.path.abspath(__file__))


class UnavailableError(Exception):
    """The server cannot run here, or not this workload; the text says why."""


@dataclass(frozen=True)
class Setting:
    """Where a server listens and writes, and what will come."""

    port: int
    output: str
    folder: str
    connections: int
    octets: bool
    limit: list[str] | None
    flush_seconds: float = 0.1
    admin: int = 0

    def lines_only(self) -> None:
        """Refuse octet-counted framing."""
        if self.octets:
            raise UnavailableError("no octet-counted framing")

    def write(self, name: str, text: str) -> str:
        """Write a configuration file; gives its path."""
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="ascii") as stream:
            stream.write(text)
        return path


def ours(query: str = "", *flags: str, sink: str = "file:{output}") -> Callable[[Setting], list[str]]:
    """Make the command of this project's server; ``query`` is the sink's."""

    def command(setting: Setting) -> list[str]:
        framing = ("--framing", "octet-counted") if setting.octets else ()
        admin = f"tcp:{setting.admin}:interface=127.0.0.1" if setting.admin else "off"
        listen = ("--listen", f"tcp:{setting.port}:interface=127.0.0.1", "--admin", admin)
        to = ("--sink", sink.format(output=setting.output) + query)
        return [sys.executable, "-m", "twisted_ingest", *listen, *to, *framing, *flags]

    return command


def reference(kind: str) -> Callable[[Setting], list[str]]:
    """Make the command of a receiver in ``reference.py``."""

    def command(setting: Setting) -> list[str]:
        setting.lines_only()
        script = os.path.join(HERE, "reference.py")
        return [sys.executable, script, kind, str(setting.port), setting.output, str(setting.flush_seconds)]

    return command


def limit(*, octets: bool) -> Callable[[Setting], list[str]]:
    """Make the command of the loop in C, for one of the framings."""

    def command(setting: Setting) -> list[str]:
        if octets is not setting.octets:
            raise UnavailableError("only lines, and only octet-counted frames: one loop for each")
        if setting.limit is None:
            raise UnavailableError("needs a C compiler")
        return [*setting.limit, "octets" if octets else "lines", str(setting.port), setting.output]

    return command


def program(name: str) -> str:
    """Find a daemon, which may be outside of an ordinary user's path."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
    if path is None:
        raise UnavailableError("not installed")
    return path


def rsyslog(setting: Setting) -> list[str]:
    """Make the command of rsyslog: imtcp, a queue in memory that never drops, and raw lines into the file."""
    path = program("rsyslogd")
    lines = [
        f'global(workDirectory="{setting.folder}" parser.escapeControlCharactersOnReceive="off" net.enableDNS="off")',
        f'module(load="imtcp" maxSessions="{setting.connections + 100}")',
        'template(name="asSent" type="string" string="%rawmsg%\\n")',
        'ruleset(name="received" queue.type="FixedArray" queue.size="100000" queue.dequeueBatchSize="1024"',
        '        queue.timeoutEnqueue="3600000") {',
        f'  action(type="omfile" file="{setting.output}" template="asSent" ioBufferSize="128k")',
        "}",
        f'input(type="imtcp" port="{setting.port}" address="127.0.0.1" ruleset="received")',
    ]
    config = setting.write("rsyslog.conf", "\n".join(lines) + "\n")
    return [path, "-n", "-f", config, "-i", os.path.join(setting.folder, "pid")]


def syslog_ng(setting: Setting) -> list[str]:
    """Make the command of syslog-ng: the line as it came, with flow control so that it never drops."""
    path = program("syslog-ng")
    about = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"Config version: (\S+)", about) or re.search(r"syslog-ng \S*?(\d+\.\d+)", about)
    driver = "syslog" if setting.octets else "network"
    window = max(100_000, 100 * setting.connections)
    lines = [
        f"@version: {version[1] if version else 'current'}",
        "options { use-dns(no); keep-hostname(yes); stats-freq(0); log-msg-size(65536); };",
        f'source received {{ {driver}(ip("127.0.0.1") port({setting.port}) transport("tcp") flags(no-parse)',
        f"  max-connections({setting.connections + 100}) log-iw-size({window})); }};",
        f'destination written {{ file("{setting.output}" template("${{MSG}}\\n") log-fifo-size({2 * window})); }};',
        "log { source(received); destination(written); flags(flow-control); };",
    ]
    config = setting.write("syslog-ng.conf", "\n".join(lines) + "\n")
    places = {"-R": "persist", "-p": "pid", "-c": "control"}
    options = [word for flag, name in places.items() for word in (flag, os.path.join(setting.folder, name))]
    return [path, "-F", "--no-caps", "-f", config, *options]


SERVERS: dict[str, Callable[[Setting], list[str]]] = {
    "limit-lines": limit(octets=False),
    "limit-octets": limit(octets=True),
    "ours": ours(),
    "ours-json": ours("?format=json"),
    "ours-durable": ours("?fsync=always"),
    "ours-spool": ours("?spool=true"),
    "ours-spool-null": ours("?spool=true", sink="null:"),
    "linereceiver": reference("linereceiver"),
    "lineonlyreceiver": reference("lineonlyreceiver"),
    "streams": reference("streams"),
    "rsyslog": rsyslog,
    "syslog-ng": syslog_ng,
}

LIMITS = frozenset({"limit-lines", "limit-octets"})
"""What others are held against."""

COUNTED = frozenset({"ours-spool-null"})
"""Servers that write no file: what has come through them is what they say themselves."""
