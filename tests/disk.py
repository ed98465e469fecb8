"""
A disk that behaves as badly as a real one may.

What was not synced is anybody's guess after a crash: any subset of the sectors of any write, any subset of the changes
to directories. A sync that failed forgets, as Linux does: the next one reports success.
"""

import errno
import random
from collections.abc import Callable, Sequence

Choose = Callable[[int], int]
"""Gives a number from 0 up to and including the one given: what the disk does where nothing is promised."""


class Crash(BaseException):
    """The machine is off."""


class _File:
    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = bytearray()
        self.unsynced: list[tuple[int, bytes]] = []


class SimDisk:
    """
    See `twisted_ingest.spool.disk.Disk`.

    ``operations`` counts what was asked for that changes something. ``plan`` maps the number of a coming operation to
    an error number, or to ``None``: it is done, and then the machine goes off. ``take`` is the most bytes of one
    write. ``space`` is what is free; ``inodes`` is how many files there may be.
    """

    def __init__(self, sector: int = 512) -> None:
        self._sector = sector
        self._names: dict[str, _File] = {}
        self._durable_names: dict[str, _File] = {}
        self._changes: list[tuple[str, str | None, _File | None]] = []
        self._descriptors: dict[int, _File] = {}
        self._last_descriptor = 2
        self._locked = False
        self.operations = 0
        self.plan: dict[int, int | None] = {}
        self.take: int | None = None
        self.space = 1 << 40
        self.inodes = 1 << 40
        self.failed: list[str] = []
        self.log: list[str] = []

    # What goes wrong.

    def _act(self, name: str, action: Callable[[], None]) -> None:
        self.operations += 1
        self.log.append(name)
        fault = self.plan.pop(self.operations, 0)
        if fault:
            self.failed.append(name)
            raise OSError(fault, errno.errorcode[fault])
        action()
        if fault is None:
            raise Crash

    def kill(self) -> None:
        """End the process: the kernel keeps what it was given."""
        self._descriptors.clear()
        self._locked = False
        self.plan.clear()

    def crash(self, choose: Choose) -> None:
        """End the machine."""
        self.kill()
        for source, target, file in self._changes:
            if choose(1):
                _change(self._durable_names, source, target, file)
        self._names = dict(self._durable_names)
        self._changes = []
        for file in {id(file): file for file in self._names.values()}.values():
            self._settle(file, choose)

    def _settle(self, file: _File, choose: Choose) -> None:
        """Keep some sectors of what was not synced."""
        for offset, data in file.unsynced:
            start = offset
            while start < offset + len(data):
                end = min((start // self._sector + 1) * self._sector, offset + len(data))
                if choose(1):
                    _put(file.durable, start, data[start - offset : end - offset])
                start = end
        file.unsynced = []
        file.data = bytearray(file.durable)

    def damage(self, path: str, offset: int, change: int) -> None:
        """Change a byte behind everybody's back."""
        file = self._names[path]
        for content in (file.data, file.durable):
            if offset < len(content):
                content[offset] ^= change

    def content(self, path: str) -> bytes:
        """Give what a file holds now."""
        return bytes(self._names[path].data)

    def put(self, path: str, data: bytes) -> None:
        """Have a file hold something, durably."""
        file = self._names[path] = self._durable_names[path] = _File()
        file.data[:] = file.durable[:] = data

    def remove(self, path: str) -> None:
        """Have a file be gone."""
        self._names.pop(path, None)
        self._durable_names.pop(path, None)

    # See `Disk`.

    def make_directory(self, path: str) -> None:
        """See `Disk`."""

    def list(self, path: str) -> list[str]:
        """See `Disk`."""
        return [name.removeprefix(f"{path}/") for name in self._names if name.startswith(f"{path}/")]

    def create(self, path: str) -> int:
        """See `Disk`."""
        if path in self._names:
            raise FileExistsError(errno.EEXIST, "it exists", path)
        if not self.free_inodes(path):
            raise OSError(errno.ENOSPC, "no inode is left", path)
        file = _File()
        self._act("create", lambda: self._rename(path, None, file))
        return self._descriptor(file)

    def open(self, path: str) -> int:
        """See `Disk`."""
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "it does not exist", path)
        return self._descriptor(self._names[path])

    def _descriptor(self, file: _File) -> int:
        self._last_descriptor += 1
        self._descriptors[self._last_descriptor] = file
        return self._last_descriptor

    def lock(self, path: str) -> int:
        """See `Disk`."""
        if self._locked:
            raise BlockingIOError(errno.EWOULDBLOCK, "locked")
        self._locked = True
        self._names.setdefault(path, _File())
        return self._descriptor(_File())

    def write(self, descriptor: int, buffers: Sequence[bytes | memoryview]) -> int:
        """See `Disk`."""
        file = self._descriptors[descriptor]
        data = b"".join(buffers)[: self.take]
        self.take = None

        def append() -> None:
            file.unsynced.append((len(file.data), data))
            file.data += data

        self._act("write", append)
        return len(data)

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        """See `Disk`."""
        return bytes(self._descriptors[descriptor].data[offset : offset + size])

    def size(self, descriptor: int) -> int:
        """See `Disk`."""
        return len(self._descriptors[descriptor].data)

    def sync(self, descriptor: int) -> None:
        """See `Disk`; one that fails has forgotten what it should have kept."""
        file = self._descriptors[descriptor]

        def keep() -> None:
            for offset, data in file.unsynced:
                _put(file.durable, offset, data)

        try:
            self._act("sync", keep)
        finally:
            file.unsynced = []

    def sync_directory(self, path: str) -> None:
        """See `Disk`; one that fails has forgotten nothing: what a journal did not take it still holds."""

        def keep() -> None:
            self._durable_names = dict(self._names)
            self._changes = []

        self._act("sync_directory", keep)

    def rename(self, source: str, target: str) -> None:
        """See `Disk`."""
        self._act("rename", lambda: self._rename(target, source, self._names[source]))

    def unlink(self, path: str) -> None:
        """See `Disk`."""
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "it does not exist", path)
        self._act("unlink", lambda: self._rename(path, None, None))

    def _rename(self, name: str, old: str | None, file: _File | None) -> None:
        _change(self._names, name, old, file)
        self._changes.append((name, old, file))

    def free(self, path: str) -> int:
        """See `Disk`."""
        return self.space

    def free_inodes(self, path: str) -> int:
        """See `Disk`."""
        return self.inodes - len(self._names)

    def close(self, descriptor: int) -> None:
        """See `Disk`."""
        self._descriptors.pop(descriptor, None)


def _change(names: dict[str, _File], name: str, old: str | None, file: _File | None) -> None:
    """Give a file a name, take its old one, or (without a file) remove the name."""
    if old is not None:
        names.pop(old, None)
    if file is None:
        names.pop(name, None)
    else:
        names[name] = file


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def seeded(seed: int) -> Choose:
    """Choose by chance, the same each time."""
    chance = random.Random(seed)
    return lambda highest: chance.randint(0, highest)


def keep_nothing(highest: int) -> int:
    """Lose everything that may be lost."""
    return 0


def keep_everything(highest: int) -> int:
    """Lose nothing."""
    return highest
