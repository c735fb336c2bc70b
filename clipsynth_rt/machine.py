"""Facts about the machine, for measurements and defaults."""

from __future__ import annotations

import os
from pathlib import Path


def processor_name() -> str:
    """Return the processor's name."""
    import platform

    return _cpuinfo("model name") or platform.processor() or platform.machine()


def processor_features() -> str:
    """Return the instruction sets that the processor has, as the system lists them, or nothing.

    A name alone may hide them: virtual machines call unlike processors alike.
    """
    return _cpuinfo("flags", "Features")  # of x86 and of Arm


def _cpuinfo(*fields: str) -> str:
    """Return the first value of one of these fields of /proc/cpuinfo, or an empty string."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    found = (line.split(":", 1)[1].strip() for line in lines if line.startswith(fields))
    return next(found, "")


def cpu_count() -> int:
    """Return how many logical processors this process may use, at least 1.

    Honours CPU affinity and, in a container, the CPU quota of cgroups v2.
    """
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return _within_quota(count)


def physical_cores() -> int:
    """Return how many physical cores this process may use, at least 1.

    Two threads on one core share its arithmetic units, so more threads than cores only wait for
    each other. Honours CPU affinity and the CPU quota, as ``cpu_count``.
    """
    if not hasattr(os, "sched_getaffinity"):
        return cpu_count()
    siblings = set()
    for cpu in os.sched_getaffinity(0):
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            siblings.add(topology.read_text())
        except OSError:
            siblings.add(str(cpu))
    return _within_quota(len(siblings))


def _within_quota(count: int) -> int:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            count = min(count, round(int(quota) / int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2 here: no quota to honour
    return max(1, count)


def describe_machine() -> str:
    """Return the processor, how many cores there are, and the system, in one line."""
    import platform

    return f"{processor_name()}, {cpu_count()} cores, {platform.system()} {platform.machine()}"


def package_version(package: str) -> str | None:
    """Return the version of an installed package, None where it is not installed."""
    import importlib.metadata

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
