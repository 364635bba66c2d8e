"""How a driver talks to the `bench` program: a request a line on standard input, an answer a line on standard output.

A request is a JSON object with `case`, `n`, `runs` and `budget_s`, and whatever else its case takes. The answer has
`seconds` (one number a run, fewer runs when the budget is spent), `ok` (whether every answer was right) and `note`; or
`error`. What a library prints goes to standard error, so that it cannot be taken for an answer.
"""

import json
import os
import sys
import time
import traceback


def serve(cases, setup=None, teardown=None):
    """Answers requests until standard input ends. `cases` maps a case's name to a function of the request."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr

    def answer(value):
        answers.write(json.dumps(value) + "\n")

    try:
        if setup is not None:
            setup()
    except BaseException as error:
        traceback.print_exc()
        answer({"error": describe(error)})
        return
    answer({"ready": True})
    try:
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer(cases[request["case"]](request))
            except Exception as error:
                traceback.print_exc()
                answer({"error": describe(error)})
    finally:
        if teardown is not None:
            teardown()


def describe(error):
    """An error on one line, short."""
    text = f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:300]


def timed(request, run):
    """Times `run(n)` as often as the request says and its budget allows. `run` gives whether its answer was right, or a
    pair of that and the seconds, if it times itself."""
    seconds, ok = [], True
    started = time.perf_counter()
    for _ in range(request["runs"]):
        before = time.perf_counter()
        right = run(request["n"])
        took = time.perf_counter() - before
        if isinstance(right, tuple):
            right, took = right
        ok = bool(right) and ok
        seconds.append(took)
        spent = time.perf_counter() - started
        if spent + spent / len(seconds) > request["budget_s"]:
            break
    return {"seconds": seconds, "ok": ok, "note": ""}


def timed_trips(request, trip):
    """Times `n` single trips a run; a run's figure is the median trip, in seconds."""
    runs, p99s, ok = [], [], True
    started = time.perf_counter()
    for _ in range(request["runs"]):
        trips = []
        for number in range(request["n"]):
            before = time.perf_counter()
            ok = trip(number) == number and ok
            trips.append(time.perf_counter() - before)
        trips.sort()
        runs.append(trips[len(trips) // 2])
        p99s.append(trips[min(len(trips) - 1, len(trips) * 99 // 100)])
        spent = time.perf_counter() - started
        if spent + spent / len(runs) > request["budget_s"]:
            break
    p99s.sort()
    return {"seconds": runs, "ok": ok, "note": "", "extra": {"p99_us": round(p99s[len(p99s) // 2] * 1e6, 1)}}


def queries(count, by_type, top_tags, months, tell_quoted=False):
    """The CSV cases. Each function takes the file's path (and with `tell_quoted` whether quoted fields hold newlines) and
    gives its answer, which the program checks; the last run's answer goes with the times."""

    def case(query):
        def run(request):
            last = None

            def once(_):
                nonlocal last
                last = query(request["path"], request["quoted"]) if tell_quoted else query(request["path"])
                return True

            return {**timed(request, once), "answer": last}

        return run

    return {"count": case(count), "by-type": case(by_type), "top-tags": case(top_tags), "months": case(months)}


def spin(micros, value):
    """Keeps a core busy for so many microseconds."""
    until = time.perf_counter() + micros / 1e6
    while time.perf_counter() < until:
        pass
    return value
