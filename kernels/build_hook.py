"""Compile the CPU kernels when gatedcells is installed or its wheel is built.

Without a C++ compiler the installation continues with a warning, and gatedcells runs in plain torch. On
Windows the same happens with a compiler that cannot build the sources, unless ``$CXX`` names it. In any other
case a compiler that fails stops the installation.
"""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path(__file__).parent / "gatedcells_kernels" / "cpu"


class CompileKernels(BuildHookInterface[Any]):
    """The hook that pyproject.toml names."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile beside the sources, and put the library into the wheel."""
        # loaded by path: gatedcells_kernels is not installed yet
        spec = importlib.util.spec_from_file_location("build", FOLDER / "build.py")
        assert spec is not None
        assert spec.loader is not None
        build = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(build)
        why_not = FOLDER / build.WHY_NOT
        try:
            library = build.build()
        except build.NoCompiler as error:
            self.app.display_warning(
                f"gatedcells is installed without its CPU kernels and will run in plain torch: {error}"
            )
            why_not.write_text(f"{error}\n", encoding="utf-8")  # for `gatedcells doctor`
            build_data["artifacts"].append(why_not.relative_to(self.root).as_posix())
            return
        why_not.unlink(missing_ok=True)
        build_data["artifacts"].append(library.relative_to(self.root).as_posix())
        build_data["pure_python"] = False
        # a library without Python's ABI: one wheel for all versions of Python
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
