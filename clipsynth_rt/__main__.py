"""``python -m clipsynth_rt``: the command line, where no script is on the path."""

import sys

from clipsynth_rt.cli import main

if __name__ == "__main__":
    try:
        main()
    except SystemExit as stop:
        # loaded by commands that train alone, which torchrun starts as this module
        distributed = sys.modules.get("clipsynth_rt.training.distributed")
        if distributed is not None and isinstance(stop.code, int):
            distributed.end(stop.code)
        raise
