"""Ctrl-C that works while native code runs.

Python raises KeyboardInterrupt when the main thread is back in Python, and a library's call may
take for ever. A second thread gives it ``GRACE_S`` and then ends the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator

GRACE_S = 3.0
"""A denoiser step takes well under a second; results are renamed into place, so none is cut."""
EXIT_CODE = 130
"""What a shell gives for a process that SIGINT ended."""


@contextlib.contextmanager
def prompt_interrupt(grace_s: float = GRACE_S) -> Iterator[None]:
    """End the process ``grace_s`` after a SIGINT, unless the block has ended by then.

    Of no effect outside the main thread, or where SIGINT is handled otherwise or ignored.
    """
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or not usual:
        yield
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    done = threading.Event()
    before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        while signals := receiver.recv(64):
            if signal.SIGINT in signals and not done.wait(grace_s):
                os.write(2, b"clipsynth-rt: interrupted\n")
                os._exit(EXIT_CODE)

    watcher = threading.Thread(target=watch, name="interrupt", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        signal.set_wakeup_fd(before)
        # the watcher reads the end of the stream
        sender.close()
        watcher.join()
        receiver.close()
