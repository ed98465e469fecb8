"""
Builds the fast paths, where there is a C compiler: without one the wheel is a pure one, and works the same more slowly.

Set ``TWISTED_INGEST_PURE_PYTHON`` to have none built (or, at run time, none used).
"""

import os
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension
from setuptools.errors import BaseError, CCompilerError

SOURCES = "twisted_ingest/*/_*.c"
"""Each is an extension module of its own, named as its file; what several share stands in headers beside them."""


class ScannerBuildHook(BuildHookInterface[Any]):
    """Compiles in place, so that an editable install has it too."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, and say so in the wheel's tag."""
        # The limited API, which makes one wheel do for all versions, is not to be had without the interpreter's lock.
        if os.environ.get("TWISTED_INGEST_PURE_PYTHON") or sysconfig.get_config_var("Py_GIL_DISABLED"):
            return
        try:
            built = self._build()
        except (BaseError, CCompilerError) as failure:
            self.app.display_warning(f"no fast paths in C, the wheel is pure Python: {failure}")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{platform}"
        build_data["artifacts"] += built

    def _build(self) -> list[str]:
        """Give the paths of what was built, from the root: all of them, or none."""
        root = Path(self.root)
        sources = sorted(str(path.relative_to(root)) for path in root.glob(SOURCES))
        extensions = [self._extension(source) for source in sources]
        command = Distribution({"name": "twisted-ingest", "ext_modules": extensions}).get_command_obj("build_ext")
        before = os.getcwd()
        os.chdir(self.root)
        try:
            with tempfile.TemporaryDirectory() as scratch:
                command.build_lib = command.build_temp = scratch
                command.inplace = command.force = True
                command.ensure_finalized()
                command.run()
            return [os.path.relpath(command.get_ext_fullpath(each.name), self.root) for each in extensions]
        finally:
            os.chdir(before)

    def _extension(self, source: str) -> Extension:
        name = source.removesuffix(".c").replace("/", ".")
        return Extension(name, [source], py_limited_api=True, extra_compile_args=["-O3", "-Wall", "-Wextra"])
