"""
Control groups for tests: processes with little memory or little of a processor, and frozen ones.

Both versions of the kernel's interface, whichever has the controller. What a machine does not allow is a skip with its
reason: most containers may not make groups of their own.
"""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from enum import StrEnum

from twisted.trial.unittest import SkipTest

from tests.attacks.disks import DiskCase
from tests.server import wait_until

PERIOD_MICROSECONDS = 100_000
"""Within which a processor's quota is given; the kernel's own default."""


class Controller(StrEnum):
    """What a group can limit, as version 1 names it."""

    MEMORY = "memory"
    CPU = "cpu"
    FREEZER = "freezer"


class Cgroup:
    """One group. Begin a command with ``prefix`` for its process to start in it."""

    def __init__(self, path: str, *, is_v2: bool) -> None:
        self._path = path
        self._is_v2 = is_v2
        self.prefix = ("sh", "-c", 'echo $$ > "$0" && exec "$@"', os.path.join(path, "cgroup.procs"))

    def _write(self, name: str, value: object) -> None:
        with open(os.path.join(self._path, name), "w") as stream:
            stream.write(str(value))

    def _read(self, name: str) -> str:
        with open(os.path.join(self._path, name)) as stream:
            return stream.read()

    def limit_memory(self, size: int) -> None:
        """Let it have so many bytes, and no swap besides."""
        self._write("memory.max" if self._is_v2 else "memory.limit_in_bytes", size)
        # Not there where the kernel does not account for swap.
        with contextlib.suppress(FileNotFoundError, PermissionError):
            name, value = ("memory.swap.max", 0) if self._is_v2 else ("memory.memsw.limit_in_bytes", size)
            self._write(name, value)

    def usage(self) -> int:
        """Give the bytes it has now, cached files included."""
        return int(self._read("memory.current" if self._is_v2 else "memory.usage_in_bytes"))

    def peak(self) -> int:
        """Give the most bytes it ever had, cached files included."""
        return int(self._read("memory.peak" if self._is_v2 else "memory.max_usage_in_bytes"))

    def oom_kills(self) -> int:
        """Count the processes that the kernel has killed for want of memory."""
        return self._count("memory.events" if self._is_v2 else "memory.oom_control", "oom_kill")

    def _count(self, name: str, key: str) -> int:
        """Read one line of a file of many."""
        return next(int(count) for found, count in map(str.split, self._read(name).splitlines()) if found == key)

    def limit_processor(self, share: float) -> None:
        """Let it have this share of one processor."""
        quota = int(share * PERIOD_MICROSECONDS)
        if self._is_v2:
            self._write("cpu.max", f"{quota} {PERIOD_MICROSECONDS}")
        else:
            self._write("cpu.cfs_period_us", PERIOD_MICROSECONDS)
            self._write("cpu.cfs_quota_us", quota)

    def throttled(self) -> float:
        """Give the seconds that it was kept waiting for its share."""
        if self._is_v2:
            return self._count("cpu.stat", "throttled_usec") / 1e6
        return self._count("cpu.stat", "throttled_time") / 1e9

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze it, and thaw it in the end: until then its processes could not even be killed."""
        name, on, off = ("cgroup.freeze", "1", "0") if self._is_v2 else ("freezer.state", "FROZEN", "THAWED")
        self._write(name, on)
        try:
            wait_until(self._is_frozen, "the group frozen")
            yield
        finally:
            self._write(name, off)

    def _is_frozen(self) -> bool:
        if self._is_v2:
            return "frozen 1" in self._read("cgroup.events").splitlines()
        return self._read("freezer.state") == "FROZEN\n"


def _offers() -> Iterator[tuple[str, bool, set[str]]]:
    """Give each place where groups are made, whether it is version 2, and the controllers that groups there have."""
    with open("/proc/self/mounts") as mounts:
        for _, place, kind, options, *_ in map(str.split, mounts):
            if kind == "cgroup":
                yield place, False, set(options.split(","))
            elif kind == "cgroup2":
                yield place, True, _controllers(place)


def _controllers(place: str) -> set[str]:
    """Give the controllers of groups made at a mount of version 2; freezing is built in."""
    # A mount that another one hides cannot be read.
    with contextlib.suppress(OSError), open(os.path.join(place, "cgroup.subtree_control")) as stream:
        return {*stream.read().split(), Controller.FREEZER}
    return set()


class CgroupCase(DiskCase):
    """Cleans up after its groups; the processes in them must have ended by then."""

    def cgroup(self, controller: Controller) -> Cgroup:
        """Make a group, or skip."""
        for place, is_v2, controllers in _offers():
            if controller in controllers:
                with contextlib.suppress(OSError):
                    path = tempfile.mkdtemp(prefix="ingest-test-", dir=place)
                    self.addCleanup(os.rmdir, path)
                    group = Cgroup(path, is_v2=is_v2)
                    if subprocess.run([*group.prefix, "true"], capture_output=True, check=False).returncode == 0:
                        return group
        raise SkipTest(f"needs to make a control group with the controller {controller} (root, outside a container)")
