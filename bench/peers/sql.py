"""Cases that are queries in SQL over Parquet files. The answer is left in a Parquet file, which the program compares."""

import protocol


def case(ask, write):
    """`ask(request)` gives the whole answer; `write(answer, path)` writes it."""

    def run(request):
        last = None

        def once(_):
            nonlocal last
            last = None
            last = ask(request)
            return True

        answer = protocol.timed(request, once)
        write(last, request["answer"])
        return answer

    return run


def serve(ask, write, setup=None):
    protocol.serve({"sql": case(ask, write)}, setup)
