"""Keeps the resident set of a process that lives for months near what it really uses."""

import ctypes
import gc

_M_ARENA_MAX = -8
"""malloc.h of glibc."""


def one_arena() -> None:
    """Have all threads share one heap; to be called before there are any.

    glibc gives each thread a heap of its own, of which freed memory returns late or never; our threads hardly meet.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # another C library may do without
        library.mallopt(_M_ARENA_MAX, 1)


def settled() -> None:
    """What is loaded by now stays for ever: give back what loading it took, and have the collector leave it alone."""
    gc.collect()
    gc.freeze()
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
