"""The graphs of `bench tasks` on HyperQueue: its tasks are programs, so a no-op is the program `true`.

A task has no value; what is checked is that every task of the job has finished. `wait_for_jobs` looks once a second, so
a figure is up to a second of wall time too high.

Arguments: (none), the number of workers of one core each.
"""

import sys
import tempfile

import tqdm

import protocol

cluster = None
client = None
directory = None


def run(job):
    submitted = client.submit(job)
    finished = client.wait_for_jobs([submitted])
    client.forget(submitted)
    return finished


def program(job, deps=()):
    return job.program(["true"], deps=deps, stdout=None, stderr=None)


def merge(n):
    job = Job()
    program(job, [program(job) for _ in range(n)])
    return run(job)


def tree(n):
    job = Job()
    level = [program(job) for _ in range(n)]
    while len(level) > 1:
        level = [program(job, pair) for pair in zip(level[::2], level[1::2])]
    return run(job)


def chain(n):
    job = Job()
    link = program(job)
    for _ in range(n):
        link = program(job, [link])
    return run(job)


def shuffle(n):
    job = Job()
    producers = [program(job) for _ in range(n)]
    for _ in range(n):
        program(job, producers)
    return run(job)


def setup():
    global cluster, client, directory, Job
    from hyperqueue import client as hq_client
    from hyperqueue.cluster import LocalCluster, WorkerConfig
    from hyperqueue.job import Job

    # A progress bar is no part of the measurement.
    hq_client.tqdm = lambda *args, **kwargs: tqdm.tqdm(*args, **{**kwargs, "disable": True})
    directory = tempfile.TemporaryDirectory(prefix="bench-hq-")
    cluster = LocalCluster(directory.name)
    for _ in range(int(sys.argv[2])):
        cluster.start_worker(WorkerConfig(cores=1))
    client = cluster.client()


def teardown():
    cluster.stop()
    directory.cleanup()


if __name__ == "__main__":
    protocol.serve(
        {
            "merge": lambda request: protocol.timed(request, merge),
            "tree": lambda request: protocol.timed(request, tree),
            "chain": lambda request: protocol.timed(request, chain),
            "shuffle": lambda request: protocol.timed(request, shuffle),
        },
        setup,
        teardown,
    )
