import ctypes
import sys

import psutil
import pytest

from trimtab.spec import heap

BLOCKS, BLOCK_BYTES = 300_000, 200


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries hand memory back by themselves")
def test_freed_memory_is_handed_back():
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    library.free.argtypes = [ctypes.c_void_p]
    blocks = [library.malloc(BLOCK_BYTES) for _ in range(BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK_BYTES)
    # The last one holds the top of the heap, so that nothing below it goes back by itself.
    for block in blocks[:-1]:
        library.free(block)
    resident = psutil.Process().memory_info
    before = resident().rss
    heap.hand_back()
    assert before - resident().rss > BLOCKS * BLOCK_BYTES / 2
    library.free(blocks[-1])
