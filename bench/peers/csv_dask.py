"""The CSV queries on dask.dataframe over a distributed cluster, in blocks of 64 MB.

Arguments: the scheduler's address, the number of workers.
"""

import sys

import dask.dataframe as dd
from distributed import Client

import csv_answers
import protocol

client = None


def read(path, *columns):
    types = {"PostTypeId": "int64", "Score": "int64", "Tags": "string", "CreationDate": "string"}
    return dd.read_csv(path, blocksize=64_000_000, usecols=list(columns), dtype={name: types[name] for name in columns})


def compute(frame):
    return client.compute(frame).result()


def count(path):
    return csv_answers.count(compute(read(path, "PostTypeId").map_partitions(len, meta=("n", "int64")).sum()))


def by_type(path):
    groups = compute(read(path, "PostTypeId", "Score").groupby("PostTypeId").Score.agg(["count", "sum"]))
    return csv_answers.by_type(groups.itertuples())


def top_tags(path):
    posts = read(path, "PostTypeId", "Tags")
    tags = posts[posts.PostTypeId == 1].Tags.dropna().str.strip("<>").str.split("><").explode()
    return csv_answers.top_tags(compute(tags.value_counts()).items())


def months(path):
    posts = read(path, "PostTypeId", "CreationDate")
    month = posts[posts.PostTypeId == 1].CreationDate.str.slice(0, 7)
    return csv_answers.months(compute(month.value_counts()).items())


def setup():
    global client
    client = Client(sys.argv[1])
    client.wait_for_workers(int(sys.argv[2]), timeout=30)


if __name__ == "__main__":
    protocol.serve(protocol.queries(count, by_type, top_tags, months), setup, lambda: client.close())
