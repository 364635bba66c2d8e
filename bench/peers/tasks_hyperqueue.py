"""The graphs of `bench tasks` on HyperQueue: its tasks are programs, so a no-op is the program `true`.

A task has no value; what is checked is that every task of the job has finished. The library looks only once a second
whether a job is done, so that the time would be a whole number of seconds: instead each graph ends with a task that
makes a file, and the time ends when the file is there.

Arguments: (none), the number of workers of one core each.
"""

import os
import sys
import tempfile
import time

import tqdm

import protocol

cluster = None
client = None
directory = None


def run(job, last):
    """Submits the job with one task more, behind `last`; gives whether all finished, and the seconds until then."""
    done = os.path.join(directory.name, "done")
    job.program(["touch", done], deps=last, stdout=None, stderr=None)
    started = time.perf_counter()
    submitted = client.submit(job)
    give_up = started + 300
    while not os.path.exists(done) and time.perf_counter() < give_up:
        time.sleep(0.001)
    seconds = time.perf_counter() - started
    finished = os.path.exists(done) and client.wait_for_jobs([submitted])
    os.unlink(done)
    client.forget(submitted)
    return finished, seconds


def program(job, deps=()):
    return job.program(["true"], deps=deps, stdout=None, stderr=None)


def merge(n):
    job = Job()
    return run(job, [program(job) for _ in range(n)])


def tree(n):
    job = Job()
    level = [program(job) for _ in range(n)]
    while len(level) > 2:
        level = [program(job, pair) for pair in zip(level[::2], level[1::2])]
    return run(job, level)


def chain(n):
    job = Job()
    link = program(job)
    for _ in range(n - 1):
        link = program(job, [link])
    return run(job, [link])


def shuffle(n):
    job = Job()
    producers = [program(job) for _ in range(n)]
    return run(job, [program(job, producers) for _ in range(n)])


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
