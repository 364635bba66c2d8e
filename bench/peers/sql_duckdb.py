"""Queries on DuckDB, in this process, over the Parquet files.

Arguments: (none), the number of threads.
"""

import sys

import duckdb
import pyarrow.parquet

import sql

connection = duckdb.connect()
registered = set()


def ask(request):
    for name, path in request["tables"].items():
        if name not in registered:
            connection.execute(f"create view {name} as select * from read_parquet('{path}')")
            registered.add(name)
    return connection.execute(request["sql"]).to_arrow_table()


if __name__ == "__main__":
    connection.execute(f"set threads = {int(sys.argv[2])}")
    sql.serve(ask, lambda table, path: pyarrow.parquet.write_table(table, path))
