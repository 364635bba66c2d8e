"""The graphs of `bench tasks` on Ray: remote functions of one CPU each, a node in this process' care.

Arguments: (none), the number of workers, which is how many CPUs the node is told to have.
"""

import sys

import ray

import protocol


@ray.remote
def noop(x):
    return x


@ray.remote
def total(*parts):
    return sum(parts)


@ray.remote
def add(a, b):
    return a + b


@ray.remote
def increment(x):
    return x + 1


@ray.remote
def spin_task(micros, value):
    return protocol.spin(micros, value)


def merge(n):
    return ray.get(total.remote(*[noop.remote(i) for i in range(n)])) == n * (n - 1) // 2


def tree(n):
    level = [noop.remote(i) for i in range(n)]
    while len(level) > 1:
        level = [add.remote(a, b) for a, b in zip(level[::2], level[1::2])]
    return ray.get(level[0]) == n * (n - 1) // 2


def chain(n):
    link = noop.remote(0)
    for _ in range(n):
        link = increment.remote(link)
    return ray.get(link) == n


def shuffle(n):
    producers = [noop.remote(i) for i in range(n)]
    return ray.get([total.remote(*producers) for _ in range(n)]) == [n * (n - 1) // 2] * n


def spin(n):
    return ray.get(total.remote(*[spin_task.remote(1000, i) for i in range(n)])) == n * (n - 1) // 2


def trip(number):
    return ray.get(noop.remote(number))


def setup():
    ray.init(
        num_cpus=int(sys.argv[2]),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    merge(200)


if __name__ == "__main__":
    protocol.serve(
        {
            "merge": lambda request: protocol.timed(request, merge),
            "tree": lambda request: protocol.timed(request, tree),
            "chain": lambda request: protocol.timed(request, chain),
            "shuffle": lambda request: protocol.timed(request, shuffle),
            "spin": lambda request: protocol.timed(request, spin),
            "roundtrip": lambda request: protocol.timed_trips(request, trip),
        },
        setup,
        ray.shutdown,
    )
