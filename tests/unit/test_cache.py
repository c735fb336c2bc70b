"""The cache's folder and its locks."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import platformdirs
import pytest

from clipsynth_rt.cache import cache_folder, locked


def test_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLIPSYNTH_RT_CACHE", str(tmp_path))
    assert cache_folder("engines") == tmp_path
    assert cache_folder("bundles") == tmp_path / "bundles"
    monkeypatch.delenv("CLIPSYNTH_RT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert cache_folder("bundles") == tmp_path / "clipsynth-rt" / "bundles"
    expected = platformdirs.user_cache_path("clipsynth-rt", appauthor=False)
    assert cache_folder("engines") == expected / "engines"


def test_a_lock_ends_with_its_holder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "new" / "it.lock"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom clipsynth_rt.cache import locked\n"
        "with locked(Path(sys.argv[1]), 'waits'):\n    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    began = time.monotonic()
    # killed, not asked to end: nothing of it runs any more
    killer = subprocess.Popen(
        [sys.executable, "-c", f"import time, os; time.sleep(0.5); os.kill({holder.pid}, 9)"]
    )
    with locked(path, "holds it"):
        assert time.monotonic() - began < 30
    assert "waiting for another process that holds it" in caplog.text
    holder.wait()
    holder.stdout.close()
    killer.wait()


def test_two_locks_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    import filelock

    with locked(tmp_path / "it.lock", "works"), pytest.raises(filelock.Timeout):
        filelock.FileLock(tmp_path / "it.lock").acquire(timeout=0)
    with locked(tmp_path / "it.lock", "works"):
        pass


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with pytest.raises(OSError, match="has no locks") as caught, locked(tmp_path / "l", "works"):
        pass
    assert caught.value.errno == errno.ENOTSUP


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OSError), locked(tmp_path / "new" / "l", "works"):  # noqa: PT011
        pass
