"""
The ``ingest`` command of twistd: options, and the service made from them.
"""

import os
import re
import ssl
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, ClassVar, NoReturn

from pydantic import BaseModel
from twisted.python import usage

from twisted_ingest import __version__
from twisted_ingest.config.fields import About, shown_default
from twisted_ingest.config.given import FLAG_PATHS
from twisted_ingest.config.load import Loaded, load
from twisted_ingest.config.look import NOT_LOOKED_AT, look
from twisted_ingest.config.meant import nearest
from twisted_ingest.config.model import DEFAULT_ENDPOINT, DEFAULT_PATH, AdminSettings, table_of
from twisted_ingest.config.tls import KEY_OF_FLAG, PEER_FLAG, TLS_FLAGS
from twisted_ingest.daemon import Daemon
from twisted_ingest.errors import ConfigurationError
from twisted_ingest.framing.scan import SCANNER
from twisted_ingest.observe.logfile import LogFile
from twisted_ingest.process import signals, standard, tuning
from twisted_ingest.process.detach import detach
from twisted_ingest.service import IngestService
from twisted_ingest.sinks.registry import STANDARD_OUTPUT, sink_types
from twisted_ingest.sources.registry import LINES, source_types

EX_CONFIG = 78
"""Exit status for a configuration mistake (sysexits.h), which supervisors are told not to retry."""

DAEMON_LOG = "twistd.log"
"""Where a daemon's log goes by default, in the folder it was started from: twistd's own name for it."""

DAEMON_UMASK = 0o077
"""What twistd gives a daemon unless ``--umask`` says otherwise."""


def _sinks() -> str:
    """List the kinds of sinks, each with what becomes of records."""
    return "; ".join(f"{kind.form} {kind.summary}" for kind in sink_types().values())


_DEFAULT_OF = {LINES: f" ({DEFAULT_ENDPOINT})"}


def _help(table: type[BaseModel], key: str) -> str:
    about = About.of(table, key)
    return f"{about.form} {about.text} ({shown_default(table, key)})"


_PARAMETERS = {
    "config": "TOML file; a flag overrides it",
    "framing": _help(source_types()[LINES].table, "framing"),
    **{flag: _help(*table_of(path)) for flag, path in FLAG_PATHS.items()},
    **{flag: _help(*KEY_OF_FLAG[flag]) for flag in TLS_FLAGS},
}

_SOURCES = {kind.flag: kind for kind in source_types().values() if kind.flag not in _PARAMETERS}

_TLS_SOURCES = {kind.tls_flag: kind for kind in _SOURCES.values() if kind.tls_flag is not None}

_REPEATABLE = {
    **{
        flag: f"{kind.address.upper()} {kind.summary}; may be repeated{_DEFAULT_OF.get(kind.word, '')}"
        for flag, kind in _SOURCES.items()
    },
    **{
        flag: f"ENDPOINT of a --{kind.flag} that speaks TLS, by --tls-certificate and --tls-key; may be repeated"
        for flag, kind in _TLS_SOURCES.items()
    },
    PEER_FLAG: f"{_help(*KEY_OF_FLAG[PEER_FLAG])}; needs --tls-client-ca; may be repeated",
    "sink": f"SPEC of where records go, may be repeated: {_sinks()} (file:{DEFAULT_PATH})",
    "allow": "NETWORK whose peers may connect, as 192.0.2.0/24; may be repeated (everybody's)",
    "proxy-protocol-from": "NETWORK of proxies that begin every connection with a PROXY header (v1 or v2): nobody else "
    "may connect; may be repeated (no header is expected)",
    "admin-host": f"{_help(AdminSettings, 'hosts')}; may be repeated",
}

_GETOPT_ERROR = re.compile(
    r"option (.*?) (not recognized|not a unique prefix|requires argument|must not have an argument)", re.DOTALL
)


class Options(usage.Options):
    """Flags of ``twistd ingest``; `load` says what they mean."""

    synopsis = "[options]"
    longdesc = "Receive log lines over TCP, keep every one of them, and show it."
    optParameters: ClassVar = [[name, None, None, text] for name, text in _PARAMETERS.items()]
    optFlags: ClassVar = [
        ["check", None, "read everything, look at what it names, report every mistake, and exit: 0 or 78"]
    ]

    loaded: Loaded

    def __init__(self) -> None:
        super().__init__()
        for name in _REPEATABLE:
            self[name] = []

    def opt_version(self) -> NoReturn:
        """Show the version and exit."""
        print(f"twisted-ingest {__version__} (scanner: {SCANNER}, {ssl.OPENSSL_VERSION})")  # noqa: T201
        raise SystemExit(0)

    def parseOptions(self, options: Any = None) -> None:
        """Parse; a mistake is one line and exit 78, where twistd would print the whole usage."""
        # Here, because nothing of ours is called earlier.
        standard.open_missing()
        signals.ignore_early()
        tuning.raise_descriptor_limit()
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            _refuse([self._improve(str(error))])

    def _improve(self, message: str) -> str:
        """Begin with the flag, as every mistake does, and say what to do."""
        match = _GETOPT_ERROR.fullmatch(message)
        if match is None:
            return f"error: {message}"
        flag, mistake = match[1], match[2]
        if mistake == "requires argument":
            return f"{flag}: error: it needs a value"
        if mistake == "must not have an argument":
            return f"{flag}: error: it takes no value"
        known = [f"--{name}" for name in [*_PARAMETERS, *_REPEATABLE, "check", "version", "help"]]
        if mistake == "not a unique prefix":
            return f"{flag}: error: it could be {' or '.join(name for name in known if name.startswith(flag))}"
        return f"{flag}: error: unknown flag{nearest(flag, known)}"

    def parseArgs(self, *words: str) -> None:
        """Refuse words that are not flags."""
        if words:
            _refuse([f"error: unexpected {words[0]!r}: everything is given by flags (try --help)"])

    def postOptions(self) -> None:
        """Read and check everything."""
        flags = {name: self[name] for name in _PARAMETERS if name != "config" and self[name] is not None}
        try:
            self.loaded = load(
                self["config"],
                flags,
                [],
                self["sink"],
                self["allow"],
                sources={flag: self[flag] for flag in (*_SOURCES, *_TLS_SOURCES)},
                tls_peers=self[PEER_FLAG],
                admin_hosts=self["admin-host"],
                proxies=self["proxy-protocol-from"],
            )
        except ConfigurationError as error:
            _refuse([str(problem) for problem in error.problems])
        if self["check"]:
            self._check()

    def _check(self) -> NoReturn:
        """Say what can be said without a start."""
        for caution in self.loaded.cautions:
            sys.stderr.write(f"{caution}\n")
        problems = look(self.loaded)
        if problems:
            _refuse([str(problem) for problem in problems])
        sys.stderr.write(f"the configuration is good\n{NOT_LOOKED_AT}\n")
        raise SystemExit(0)


def _gather(name: str, text: str) -> Callable[[Options, str], None]:
    """Make the method by which twistd gathers the values of a flag that may be repeated."""

    def gather(self: Options, value: str) -> None:
        self[name].append(value)

    gather.__doc__ = text
    return gather


for _name, _text in _REPEATABLE.items():
    setattr(Options, f"opt_{_name.replace('-', '_')}", _gather(_name, _text))


def _refuse(lines: list[str]) -> NoReturn:
    for line in lines:
        sys.stderr.write(f"{line}\n")
    raise SystemExit(EX_CONFIG)


def makeService(options: Options) -> IngestService:
    """
    Make the service for twistd, in the process that will run it: where that is a daemon, this one waits for its start.

    Of twistd's own log options ``--syslog`` and ``--logger`` win over ours; ``--logfile`` says where it goes.
    """
    from twisted.internet import reactor  # noqa: PLC0415 - twistd has chosen it by now

    tuning.take_steady_time(reactor)
    tuning.share_interpreter()
    tuning.keep_freed_memory()
    outer: MutableMapping[str, Any] = options.parent or {"nodaemon": True}
    is_daemon = not outer.get("nodaemon")
    mistakes = _find_nowhere(options.loaded, outer, is_daemon=is_daemon)
    if mistakes:
        _refuse(mistakes)
    log = _open_log(outer, is_daemon=is_daemon)
    detached = None
    if is_daemon:
        detached = detach(log.path if isinstance(log, LogFile) else "the system's log")
        # We have detached by ourselves; of what twistd does for a daemon, only the umask is left to do.
        outer["nodaemon"] = True
        outer["umask"] = DAEMON_UMASK if outer.get("umask") is None else outer["umask"]
    try:
        return Daemon(options.loaded, reactor, log=log, detached=detached, pid_file=outer.get("pidfile"))
    except ConfigurationError as error:
        _refuse([options.loaded.secrets.hide(str(problem)) for problem in error.problems])


def _find_nowhere(loaded: Loaded, outer: Mapping[str, Any], *, is_daemon: bool) -> list[str]:
    """Complain of what would be written to a standard output that keeps nothing."""
    found = []
    if is_daemon and outer.get("logfile") == "-":
        found.append("--logfile=-: error: a daemon has no standard output (name a file, or add -n)")
    for name, sink in loaded.settings.sinks.items():
        if STANDARD_OUTPUT in sink_types()[sink.type].places(sink) and (is_daemon or standard.is_null(1)):
            reason = "a daemon has none" if is_daemon else f"it is closed, or {os.devnull}"
            found.append(
                f"error: sink {name!r} writes to standard output, and {reason}: nobody would ever read it "
                f"(use file:PATH{', or add -n,' if is_daemon else ''} or null: to keep nothing)"
            )
    return found


def _open_log(outer: Mapping[str, Any], *, is_daemon: bool) -> LogFile | int | None:
    """Open our log where twistd was told to have it; ``None`` where it does that itself."""
    if outer.get("syslog") or outer.get("logger"):
        return None
    path = outer.get("logfile") or (DAEMON_LOG if is_daemon else None)
    if path is None or path == "-":
        return 2 if path is None else 1
    try:
        return LogFile(path)
    except OSError as error:
        sys.stderr.write(f"error: cannot open the log {path}: {error.strerror}\n")
        raise SystemExit(1) from error
