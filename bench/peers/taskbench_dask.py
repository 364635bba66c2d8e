"""METG(50%) of Task Bench's patterns on Dask: futures of the distributed client, as a user submits them.

Arguments: the scheduler's address, the number of workers. A request holds the graph, `rows` of tasks, each
`[seed, columns of the row before, whether its output is looked at]`, and `threads`. The kernel keeps a core busy by the clock.
"""

import sys
import time

from distributed import Client

import protocol

client = None
MASK = (1 << 64) - 1
GOAL, ENOUGH = 0.5, 0.4
FIRST_US, LARGEST_US, SMALLEST_US = 8192.0, 131072.0, 16.0


def mixed(number):
    number = (number + 0x9E3779B97F4A7C15) & MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & MASK
    return number ^ (number >> 31)


def cell(micros, seed, inputs):
    protocol.spin(micros, None)
    for value in inputs:
        seed = mixed(seed ^ ((value << 1 | value >> 63) & MASK))
    return seed


def run(rows, micros):
    """The outputs that are looked at, row by row."""
    last, before = [], []
    for row in rows:
        submitted = []
        for seed, columns, is_last in row:
            future = client.submit(cell, micros, seed, [before[column] for column in columns], pure=False)
            submitted.append(future)
            if is_last:
                last.append(future)
        before = submitted
    return client.gather(last)


def crossing(points):
    """Where the curve through the points, largest kernel first, last falls below the goal: as `metg` in
    `src/taskbench/metg.rs`."""
    above = max((at for at, (_, efficiency) in enumerate(points) if efficiency >= GOAL), default=None)
    if above is None:
        raise RuntimeError("no kernel was large enough for an efficiency of 50%")
    granularity, efficiency = points[above]
    if above + 1 == len(points):
        return granularity
    below_granularity, below_efficiency = points[above + 1]
    share = (efficiency - GOAL) / (efficiency - below_efficiency)
    return min(granularity, granularity * (below_granularity / granularity) ** share)


def metg(request):
    """A run is a sweep of kernels; its figure is METG(50%) in seconds."""
    outputs = []

    def point(micros, n):
        started = time.perf_counter()
        outputs[:] = run(request["rows"], micros)
        granularity = (time.perf_counter() - started) * 1e6 * request["threads"] / n
        return granularity, micros / granularity

    def sweep(n):
        micros = FIRST_US
        points = [point(micros, n)]
        while points[0][1] < GOAL and micros < LARGEST_US:
            micros *= 2
            points.insert(0, point(micros, n))
        if len(points) == 1:
            while points[-1][1] >= ENOUGH and micros > SMALLEST_US:
                micros /= 2
                points.append(point(micros, n))
        return True, crossing(points) / 1e6

    answer = protocol.timed(request, sweep)
    return {**answer, "answer": outputs, "note": "the kernel spins by the clock"}


def setup():
    global client
    client = Client(sys.argv[1])
    client.wait_for_workers(int(sys.argv[2]), timeout=30)
    run([[(1, (), False)] * 100, [(2, (0,), True)] * 100], 100.0)


def teardown():
    client.close()


if __name__ == "__main__":
    protocol.serve({"metg": metg}, setup, teardown)
