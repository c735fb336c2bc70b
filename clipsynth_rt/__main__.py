"""``python -m clipsynth_rt``: the command line, where no script is on the path."""

from clipsynth_rt.cli import main

if __name__ == "__main__":
    main()
