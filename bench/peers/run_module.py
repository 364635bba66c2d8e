"""Runs a module's command line, and ends with whoever started it: standard input is a pipe that the starter holds open."""

import os
import runpy
import sys
import threading


def end_with_starter():
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_starter, daemon=True).start()
    module = sys.argv[1]
    sys.argv = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
