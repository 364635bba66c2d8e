"""The CSV queries on Polars' streaming engine, in this process.

Arguments: (none), the number of threads.
"""

import os
import sys

os.environ["POLARS_MAX_THREADS"] = sys.argv[2]

import polars as pl

import csv_answers
import protocol


def collect(frame):
    return frame.collect(engine="streaming").rows()


def scan(path):
    schema = {name: pl.Int64 if name in csv_answers.NUMBERS else pl.String for name in csv_answers.COLUMNS}
    return pl.scan_csv(path, schema=schema)


def questions(path):
    return scan(path).filter(pl.col("PostTypeId") == 1)


def count(path):
    return csv_answers.count(collect(scan(path).select(pl.len()))[0][0])


def by_type(path):
    groups = scan(path).group_by("PostTypeId").agg(pl.len(), pl.col("Score").sum())
    return csv_answers.by_type(collect(groups))


def top_tags(path):
    tags = questions(path).select(pl.col("Tags").str.strip_chars("<>").str.split("><").explode().alias("tag"))
    return csv_answers.top_tags(collect(tags.drop_nulls().group_by("tag").agg(pl.len())))


def months(path):
    month = pl.col("CreationDate").str.slice(0, 7).alias("month")
    return csv_answers.months(collect(questions(path).group_by(month).agg(pl.len())))


if __name__ == "__main__":
    protocol.serve(protocol.queries(count, by_type, top_tags, months))
