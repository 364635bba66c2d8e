"""Queries on Polars' SQL, in this process, by its streaming engine, over the Parquet files.

Arguments: (none), the number of threads.
"""

import os
import sys

os.environ["POLARS_MAX_THREADS"] = sys.argv[2]

import polars  # noqa: E402

import sql  # noqa: E402


def ask(request):
    context = polars.SQLContext({name: polars.scan_parquet(path) for name, path in request["tables"].items()})
    return context.execute(request["sql"]).collect(engine="streaming")


if __name__ == "__main__":
    sql.serve(ask, lambda frame, path: frame.write_parquet(path))
