"""
Broken disks for tests: small file systems, and system calls that fail or take their time by order.

What a machine does not allow is a skip with its reason.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.server import Server
from twisted_ingest.limits import MIB


class DiskCase(SynchronousTestCase):
    """Cleans up after its disks; servers end before their disks go."""

    def folder(self) -> str:
        """Make a folder."""
        path = tempfile.mkdtemp(prefix="ingest-disk-")
        self.addCleanup(shutil.rmtree, path, ignore_errors=True)
        return path

    def mount(self, *what: str) -> str:
        """Mount something on a new folder, or skip."""
        path = self.folder()
        if subprocess.run(["mount", *what, path], capture_output=True, check=False).returncode:
            raise SkipTest("needs to mount a file system: root, or a user namespace that may")
        # Lazily, since a process that a failed test left behind may have a file open there.
        self.addCleanup(subprocess.run, ["umount", "--lazy", path], check=True)
        return path

    def ext4(self) -> tuple[str, str]:
        """Mount an ext4 of its own that turns read-only at an error, or skip; gives its folder and its device."""
        image = os.path.join(self.folder(), "image")
        with open(image, "wb") as stream:
            stream.truncate(16 * MIB)
        if shutil.which("mkfs.ext4") is None or shutil.which("losetup") is None:
            raise SkipTest("needs mkfs.ext4 and losetup (Debian packages e2fsprogs and mount)")
        subprocess.run(["mkfs.ext4", "-q", image], check=True, capture_output=True)
        found = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, check=False, text=True)
        if found.returncode:
            raise SkipTest("needs a loop device (root)")
        device = found.stdout.strip()
        self.addCleanup(subprocess.run, ["losetup", "--detach", device], check=True)
        folder = self.mount("-o", "errors=remount-ro", device)
        if not os.access(f"/sys/fs/ext4/{os.path.basename(device)}/trigger_fs_error", os.W_OK):
            raise SkipTest("needs trigger_fs_error of ext4 (root)")
        return folder, device

    def server(self, *flags: str, prefix: tuple[str, ...] = (), folder: str | None = None) -> Server:
        """Start a server that ends with the test."""
        server = Server(*flags, prefix=prefix, folder=folder)
        self.addCleanup(server.kill)
        server.wait_ready()
        return server

    def broken(self, *faults: str) -> tuple[str, ...]:
        """
        Give what a command must begin with to have faults injected into its system calls, or skip.

        A fault is what ``strace -e inject=`` takes: ``fdatasync:error=EIO:when=1``, numbers counting in each thread.
        """
        strace = shutil.which("strace")
        if strace is None:
            raise SkipTest("needs strace (Debian package strace)")
        calls = ",".join(fault.partition(":")[0] for fault in faults)
        options = ["-D", "-f", "-qq", "-o", os.devnull, "-e", f"trace={calls}", "-e", "signal=none"]
        # The filter stops the process for these calls only: without it each call of any kind would be stopped for.
        prefix = (strace, *options, "--seccomp-bpf", *(part for fault in faults for part in ("-e", f"inject={fault}")))
        if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
            raise SkipTest("needs strace 5.3, allowed to trace (ptrace)")
        return prefix


def read_lines(*paths: str) -> list[bytes]:
    """Give the lines of files, one after the other; a missing one has none."""
    lines: list[bytes] = []
    for path in paths:
        if os.path.exists(path):
            with open(path, "rb") as stream:
                lines += stream.read().splitlines()
    return lines


def split(lines: list[bytes], parts: int) -> Iterable[list[bytes]]:
    """Cut lines into parts of about one size."""
    size = -(-len(lines) // parts)
    return (lines[start : start + size] for start in range(0, len(lines), size))
