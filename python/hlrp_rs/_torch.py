"""Whether the torch of this process is the one that the extension was built for. Nothing here imports torch."""

import importlib.util
import re
import sys
from pathlib import Path

BUILT_FOR = "2.11.0"
"""Version of torch whose libraries the extension links."""


def library_folder() -> Path:
    """Folder of libtorch's shared libraries, of the torch that an import would find."""
    return _folder() / "lib"


def check() -> None:
    """Refuses, in one sentence, a process without torch or with another one than the extension was built for."""
    loaded = sys.modules.get("torch")
    version = str(getattr(loaded, "__version__", None) or _version_on_disk())
    if version.split("+")[0] != BUILT_FOR:
        raise ImportError(
            f"hlrp_rs was built for torch {BUILT_FOR}, but this Python has torch {version}: "
            f"pip install torch=={BUILT_FOR}, or install a hlrp_rs that was built for torch {version}"
        )


def _folder() -> Path:
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            f"hlrp_rs needs torch {BUILT_FOR}, and {sys.executable} has none: pip install torch=={BUILT_FOR}"
        )
    return Path(spec.submodule_search_locations[0])


def _version_on_disk() -> str:
    """What `torch.__version__` will be; read from its file, because importing torch takes seconds."""
    file = _folder() / "version.py"
    found = re.search(r"^__version__ = '([^']+)'", file.read_text(), re.MULTILINE) if file.is_file() else None
    return found.group(1) if found else "of an unknown version"
