"""``python -m clipsynth_rt`` and the script ``clipsynth-rt``: the command line as a process."""

from __future__ import annotations

import sys
from typing import NoReturn

from clipsynth_rt.cli.main import main


def run() -> NoReturn:
    """Run the command line on ``sys.argv``, and end as it did.

    Raises:
        SystemExit: With its code; a process that ``torchrun`` started ends at once instead.
    """
    try:
        main()
    except SystemExit as stop:
        # loaded by commands that train alone
        distributed = sys.modules.get("clipsynth_training.run.distributed")
        if distributed is not None and isinstance(stop.code, int):
            distributed.end(stop.code)
        raise
    raise AssertionError("click's commands end in SystemExit")


if __name__ == "__main__":
    run()
