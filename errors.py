"""What a user sees when something is wrong: one line that names the thing and the mend.

Exit status 2 for what the user can mend, 130 for Ctrl-C. Every script imports this file before anything else,
because most of a script's first seconds are imports and Ctrl-C must be one line there too.
"""

import argparse
import os
import signal
import sys


class UserError(Exception):
    """Something that the user can mend; its text is the line that is shown."""


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong flag is one line like every other error. Its description is the script's docstring."""

    def __init__(self, description: str):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def parse_args(self, *args):
        if signal.getsignal(signal.SIGINT) is _leave:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on there may be things to tidy up
        return super().parse_args(*args)

    def error(self, message):
        raise UserError(f"{message} (see --help)")


def _show(kind, error, trace):
    if issubclass(kind, KeyboardInterrupt):
        status, line = 130, "interrupted: earlier results are as they were"
    elif issubclass(kind, UserError):
        status, line = 2, "error: " + " ".join(str(error).split())
    elif issubclass(kind, BrokenPipeError):  # `train_base.py | head`: nobody reads on
        status, line = 0, ""
    elif issubclass(kind, OSError):  # of the machine, not of ours: `train_base.py > log` on a full disk, say
        status, line = 2, f"error: {error}"
    else:
        return sys.__excepthook__(kind, error, trace)  # a fault of ours: the traceback is wanted
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C while leaving changes nothing
    if line:
        clear = "\r\033[K" if sys.stderr.isatty() else ""  # a progress bar may stand on this line
        print(clear + line, file=sys.stderr, flush=True)
    try:
        sys.stdout.flush()
    except OSError:
        pass
    os._exit(status)  # sys.exit cannot choose the status here; every `finally` has run by now


def _leave(*_):
    _show(KeyboardInterrupt, None, None)


sys.excepthook = _show
sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))  # None if closed
if hasattr(sys.stdout, "reconfigure"):
    sys.stdout.reconfigure(errors="backslashreplace")  # a folder's name need not be printable where output goes
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _leave)  # numpy and torch, being imported, swallow KeyboardInterrupt and go on, broken
