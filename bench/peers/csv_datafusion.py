"""The CSV queries on DataFusion, in this process. A file with newlines in quoted fields needs an option that gives up the
parallel scan; both files are read with the settings that are right for them.

Arguments: (none), the number of threads.
"""

import sys

import pyarrow
from datafusion import CsvReadOptions, SessionConfig, SessionContext

import csv_answers
import protocol

SCHEMA = pyarrow.schema(
    [(name, pyarrow.int64() if name in csv_answers.NUMBERS else pyarrow.string()) for name in csv_answers.COLUMNS]
)


def rows(path, query, quoted):
    context = SessionContext(SessionConfig().with_target_partitions(int(sys.argv[2])))
    options = CsvReadOptions(schema=SCHEMA, has_header=True, newlines_in_values=quoted)
    context.register_csv("posts", path, options=options)
    batches = context.sql(query).collect()
    return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]


def count(path, quoted):
    return csv_answers.count(rows(path, "select count(*) from posts", quoted)[0][0])


def by_type(path, quoted):
    query = 'select "PostTypeId", count(*), sum("Score") from posts group by 1'
    return csv_answers.by_type(rows(path, query, quoted))


def top_tags(path, quoted):
    query = """
        select tag, count(*) from (
            select unnest(string_to_array(btrim("Tags", '<>'), '><')) as tag from posts where "PostTypeId" = 1
        ) where tag <> '' group by 1
    """
    return csv_answers.top_tags(rows(path, query, quoted))


def months(path, quoted):
    query = """select substr("CreationDate", 1, 7), count(*) from posts where "PostTypeId" = 1 group by 1"""
    return csv_answers.months(rows(path, query, quoted))


if __name__ == "__main__":
    protocol.serve(protocol.queries(count, by_type, top_tags, months, tell_quoted=True))
