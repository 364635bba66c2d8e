"""The jobs over bags on dask.bag over a distributed cluster, in blocks of 16 MB.

Arguments: the scheduler's address, the number of workers.
"""

import json
import sys
import zlib

import dask.bag as db
from distributed import Client

import protocol

client = None


def read(path):
    return db.read_text(path, blocksize=16_000_000, encoding="utf-8")


def words(path):
    return list(client.compute(read(path).str.split().flatten().frequencies()).result())


def words_answer(counts):
    checksum = 0
    for word, count in sorted(counts):
        checksum = zlib.crc32(f"{word} {count}\n".encode(), checksum)
    return {"words": sum(count for _, count in counts), "distinct": len(counts), "crc32": checksum}


def is_wanted(account):
    return account["name"] < "N"


def name_of(account):
    return account["name"]


def add(sums, account):
    transactions = account["transactions"]
    return sums[0] + len(transactions), sums[1] + sum(transaction["amount"] for transaction in transactions)


def combine(one, other):
    return one[0] + other[0], one[1] + other[1]


def accounts(path):
    wanted = read(path).map(json.loads).filter(is_wanted)
    return list(client.compute(wanted.foldby(name_of, add, (0, 0), combine, (0, 0))).result())


def accounts_answer(groups):
    return sorted(([name, list(sums)] for name, sums in groups), key=lambda group: group[0])


def case(job, answer):
    def run(request):
        last = None

        def once(_):
            nonlocal last
            last = job(request["path"])
            return True

        times = protocol.timed(request, once)
        return {**times, "answer": answer(last)}

    return run


def setup():
    global client
    client = Client(sys.argv[1])
    client.wait_for_workers(int(sys.argv[2]), timeout=30)


if __name__ == "__main__":
    cases = {"words": case(words, words_answer), "accounts": case(accounts, accounts_answer)}
    protocol.serve(cases, setup, lambda: client.close())
