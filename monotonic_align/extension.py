"""The compiled alignment search, which is built if it is missing or older than its source."""

import functools
import importlib
import logging
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "core.pyx"
BUILT = HERE / f"core{sysconfig.get_config_var('EXT_SUFFIX')}"
BUILD_SECONDS = 300
ADVICE = "install a C compiler, then run: cd monotonic_align && python setup.py build_ext --inplace"

logger = logging.getLogger(__name__)


@functools.cache
def load() -> ModuleType | None:
    """Return the compiled module `core`, building it if necessary, or None after a warning if the build fails.

    There is one attempt in each process. If several processes call this at once, one builds and the others wait.
    """
    try:
        if not _is_current():
            _build()
        return importlib.import_module(f"{__package__}.core")
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip() or "the build failed").splitlines()[-1]
    except (OSError, ImportError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    logger.warning("The compiled alignment search is missing, using numpy, slower: %s (%s).", ADVICE, reason)
    return None


def _is_current() -> bool:
    return BUILT.exists() and BUILT.stat().st_mtime >= SOURCE.stat().st_mtime


def _build() -> None:
    from filelock import FileLock  # imports asyncio, and only a build needs it

    work = HERE / "build"
    work.mkdir(exist_ok=True)
    with FileLock(work / "lock", timeout=2 * BUILD_SECONDS):
        if _is_current():  # another process has built it in the meantime
            return
        with tempfile.TemporaryDirectory(dir=work) as folder:
            setup = str(HERE / "setup.py")
            command = [sys.executable, setup, "build_ext", "--build-lib", folder, "--build-temp", folder]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=BUILD_SECONDS)
            os.replace(Path(folder) / BUILT.name, BUILT)  # atomic
    importlib.invalidate_caches()
