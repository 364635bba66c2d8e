"""The graphs of `bench tasks` on Dask: futures of the distributed client, as a user submits them.

Arguments: the scheduler's address, the number of workers.
"""

import sys

from distributed import Client, wait

import protocol

client = None
held = []


def noop(x):
    return x


def total(parts):
    return sum(parts)


def add(a, b):
    return a + b


def increment(x):
    return x + 1


def producer(x):
    return x


def merge(n):
    parts = client.map(noop, range(n), pure=False)
    return client.submit(total, parts, pure=False).result() == n * (n - 1) // 2


def tree(n):
    level = client.map(noop, range(n), pure=False)
    while len(level) > 1:
        level = client.map(add, level[::2], level[1::2], pure=False)
    return level[0].result() == n * (n - 1) // 2


def chain(n):
    link = client.submit(noop, 0, pure=False)
    for _ in range(n):
        link = client.submit(increment, link, pure=False)
    return link.result() == n


def shuffle(n):
    producers = client.map(producer, range(n), pure=False)
    consumers = [client.submit(total, producers, pure=False) for _ in range(n)]
    return client.gather(consumers) == [n * (n - 1) // 2] * n


def spin(n):
    parts = client.map(protocol.spin, [1000] * n, range(n), pure=False)
    return client.submit(total, parts, pure=False).result() == n * (n - 1) // 2


def trip(number):
    return client.submit(noop, number, pure=False).result()


def hold(request):
    """Leaves `n` finished tasks alive, for the scheduler's memory to be looked at."""
    held.extend(client.map(noop, range(request["n"]), pure=False))
    wait(held)
    return {"seconds": [0.0], "ok": True, "note": ""}


def setup():
    global client
    client = Client(sys.argv[1])
    client.wait_for_workers(int(sys.argv[2]), timeout=30)
    merge(200)


def teardown():
    held.clear()
    client.close()


if __name__ == "__main__":
    protocol.serve(
        {
            "merge": lambda request: protocol.timed(request, merge),
            "tree": lambda request: protocol.timed(request, tree),
            "chain": lambda request: protocol.timed(request, chain),
            "shuffle": lambda request: protocol.timed(request, shuffle),
            "spin": lambda request: protocol.timed(request, spin),
            "roundtrip": lambda request: protocol.timed_trips(request, trip),
            "hold": hold,
        },
        setup,
        teardown,
    )
