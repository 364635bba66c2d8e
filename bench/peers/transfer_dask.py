"""A value from one Dask worker to another.

Arguments: the scheduler's address, the number of workers.
"""

import os
import sys
import time

import pyarrow
from distributed import Client, wait

import protocol

client = None
workers = []


def make_bytes(nbytes):
    return os.getpid().to_bytes(8, "little") + bytes(nbytes - 8)


def take_bytes(value):
    return int.from_bytes(value[:8], "little"), os.getpid(), len(value)


def make_arrow(nbytes):
    rows = nbytes // 8
    column = pyarrow.py_buffer(bytearray(os.getpid().to_bytes(8, "little") + bytes(rows * 8 - 8)))
    return pyarrow.table({"value": pyarrow.Array.from_buffers(pyarrow.int64(), rows, [None, column])})


def take_arrow(value):
    return value.column(0)[0].as_py(), os.getpid(), value.num_rows * 8


def moved(request, make, take):
    """Seconds from asking for the consumer until its answer is here; the value is made before."""
    nbytes = request["n"]
    seconds, ok = [], True
    started = time.perf_counter()
    for _ in range(request["runs"]):
        value = client.submit(make, nbytes, pure=False, workers=[workers[0]])
        wait(value)
        before = time.perf_counter()
        producer, consumer, size = client.submit(take, value, pure=False, workers=[workers[1]]).result()
        seconds.append(time.perf_counter() - before)
        ok = ok and producer != consumer and size == nbytes
        del value
        if time.perf_counter() - started + seconds[-1] > request["budget_s"]:
            break
    return {"seconds": seconds, "ok": ok, "note": "not encrypted"}


def setup():
    global client
    client = Client(sys.argv[1])
    client.wait_for_workers(int(sys.argv[2]), timeout=30)
    workers.extend(sorted(client.scheduler_info()["workers"]))


if __name__ == "__main__":
    protocol.serve(
        {
            "bytes": lambda request: moved(request, make_bytes, take_bytes),
            "arrow": lambda request: moved(request, make_arrow, take_arrow),
        },
        setup,
        lambda: client.close(),
    )
