"""How much memory this process holds."""

import ctypes
import gc
import resource
from pathlib import Path

# KiB by which a thousand steps may differ: four for each of them would be noticed.
SLACK = 4 * 1024


def resident_kib() -> int:
    """Memory that is held now, in KiB, without what the allocator keeps for later."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    num_pages = int(Path("/proc/self/statm").read_text().split()[1])
    return num_pages * resource.getpagesize() // 1024
