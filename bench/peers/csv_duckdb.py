"""The CSV queries on DuckDB, in this process, with the parallel reader.

Arguments: (none), the number of threads.
"""

import sys

import duckdb

import csv_answers
import protocol

connection = None


def rows(path, query):
    # The dialect and the columns are told: guessing them costs half of the time here. What is left as it is: the parallel
    # reader's buffers, which a larger `max_line_size` would make too large to share.
    types = {name: "BIGINT" if name in csv_answers.NUMBERS else "VARCHAR" for name in csv_answers.COLUMNS}
    source = (
        f"read_csv('{path}', header = true, delim = ',', quote = '\"', escape = '\"', auto_detect = false, "
        f"columns = {types})"
    )
    return connection.execute(query.replace("{posts}", source)).fetchall()


def count(path):
    return csv_answers.count(rows(path, "select count(*) from {posts}")[0][0])


def by_type(path):
    return csv_answers.by_type(rows(path, "select PostTypeId, count(*), sum(Score) from {posts} group by 1"))


def top_tags(path):
    query = """
        select tag, count(*) from (
            select unnest(string_split(trim(Tags, '<>'), '><')) as tag from {posts} where PostTypeId = 1
        ) where tag <> '' group by 1
    """
    return csv_answers.top_tags(rows(path, query))


def months(path):
    query = "select substr(CreationDate, 1, 7), count(*) from {posts} where PostTypeId = 1 group by 1"
    return csv_answers.months(rows(path, query))


def setup():
    global connection
    connection = duckdb.connect(":memory:", config={"threads": int(sys.argv[2])})


if __name__ == "__main__":
    protocol.serve(protocol.queries(count, by_type, top_tags, months), setup)
