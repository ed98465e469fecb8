"""The load, the verifier and the loop in C: compiled into a temporary folder, or their Python stand-ins."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from lines import make_filler

HERE = os.path.dirname(os.path.abspath(__file__))


@dataclass(frozen=True)
class Tools:
    """Commands to begin with; ``limit`` is None without a compiler."""

    load: list[str]
    verify: list[str]
    limit: list[str] | None
    filler: str
    note: str

    def verified(self, path: str, connections: int, lines: int, size: int, *, json_lines: bool) -> dict[str, Any]:
        """Hold a file against what was sent."""
        command = [*self.verify, "-c", str(connections), "-n", str(lines), "-s", str(size), "-f", self.filler]
        done = subprocess.run(
            [*command, *(["-j"] if json_lines else []), path], capture_output=True, text=True, check=False
        )
        if done.returncode not in (0, 1):
            raise RuntimeError(f"the verifier failed: {done.stderr}")
        report: dict[str, Any] = json.loads(done.stdout)
        return report


def prepare(folder: str, *, compile_them: bool = True) -> Tools:
    """Compile what can be compiled into ``folder``."""
    filler = os.path.join(folder, "filler")
    with open(filler, "wb") as stream:
        stream.write(make_filler())
    compiler = shutil.which(os.environ.get("CC", "cc")) if compile_them else None
    built = {name: _compile(compiler, name, folder) for name in ("load", "verify", "limit")}
    if None in built.values():
        stand_ins = {name: [sys.executable, os.path.join(HERE, f"{name}.py")] for name in ("load", "verify")}
        why = "compiling failed" if compiler else "not asked to compile" if not compile_them else "no C compiler"
        note = f"{why}: load and verifier in Python (the load may be the limit), no loop in C, so no ratios to it"
        return Tools(stand_ins["load"], stand_ins["verify"], None, filler, note)
    commands = {name: [path] for name, path in built.items() if path}
    return Tools(commands["load"], commands["verify"], commands["limit"], filler, f"load compiled with {compiler}")


def compiled(name: str, folder: str, *libraries: str) -> str | None:
    """Compile a program into a folder, with what it is linked to; ``None`` where that cannot be."""
    return _compile(shutil.which(os.environ.get("CC", "cc")), name, folder, *libraries)


def _compile(compiler: str | None, name: str, folder: str, *libraries: str) -> str | None:
    if compiler is None:
        return None
    target = os.path.join(folder, name)
    done = subprocess.run(
        [compiler, "-O2", "-o", target, os.path.join(HERE, f"{name}.c"), *(f"-l{each}" for each in libraries)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(f"{name}.c: {done.stderr}", file=sys.stderr)
        return None
    return target
