"""What the server has written: rotated away, verified and removed piece by piece, so that a soak needs little disk."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterable

from tests.server import Server, wait_until

DISK = "48m"
"""Size of the disk that is filled up now and then."""
_GOOD = re.compile(rb"(?:<13>)?good (\w+) (\d+) \.*;\n")


class Verifier:
    """Follows the numbers of every good sender: ``seen`` is the next one expected of each."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self.wrong: list[str] = []
        """Lines that were missing, doubled or out of order, as far as there is room to say so."""
        self.mistakes = 0
        self.torn = 0
        """Beginnings of lines at the end of a file."""

    def take(self, lines: Iterable[bytes]) -> None:
        """Look at lines in the order in which they were written."""
        for line in lines:
            found = _GOOD.fullmatch(line)
            if found is None:
                # Where a rotation meets a full disk, a line may be begun in the old file and is whole in the new one.
                self.torn += not line.endswith(b"\n")
                continue
            name, number = found[1].decode(), int(found[2])
            if number != self.seen.get(name, 0):
                self.mistake(f"{name}: {number} where {self.seen.get(name, 0)} was due")
            self.seen[name] = number + 1

    def mistake(self, text: str) -> None:
        """Count what is wrong."""
        self.mistakes += 1
        if len(self.wrong) < 20:
            self.wrong.append(text)

    def finish(self, sent: dict[str, int]) -> None:
        """Compare with what was sent in all."""
        for name, count in sent.items():
            if self.seen.get(name, 0) != count:
                self.mistake(f"{name}: {self.seen.get(name, 0)} written of {count} sent")


class Disk:
    """A folder for the server's file: a small disk of its own where one can be mounted."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder]
        with contextlib.suppress(FileNotFoundError):
            self.is_small = subprocess.run(mount, capture_output=True, check=False).returncode == 0
        self.path = os.path.join(folder, "ingest.log")

    is_small = False

    def close(self) -> None:
        """Unmount it."""
        if self.is_small:
            subprocess.run(["umount", self.folder], check=False)  # noqa: S607

    def fill(self, seconds: float) -> None:
        """Leave no room for a while."""
        ballast = os.path.join(self.folder, "ballast")
        # There may be no room even for an empty file: then it is full already.
        with contextlib.suppress(OSError), open(ballast, "wb") as stream:
            while True:
                stream.write(b"x" * 65536)
                stream.flush()
        time.sleep(seconds)
        with contextlib.suppress(FileNotFoundError):
            os.remove(ballast)

    def rotate(self, server: Server, verifier: Verifier) -> None:
        """Rename the file, have it opened anew, and verify and remove the old one."""
        old = f"{self.path}.1"
        if not os.path.exists(self.path):
            return
        os.rename(self.path, old)
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: os.path.exists(self.path), "a new file")
        self.verify(old, verifier)
        os.remove(old)

    def verify(self, path: str, verifier: Verifier) -> None:
        """Verify a file that nobody writes to any more."""
        with open(path, "rb") as lines:
            verifier.take(lines)
