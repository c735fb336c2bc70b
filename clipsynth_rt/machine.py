"""What a figure was measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path


def processor_name() -> str:
    """Return the processor's name."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def processor_features() -> str:
    """Return the instruction sets that the processor has, as the system lists them, or nothing.

    A name alone may hide them: virtual machines call unlike processors alike.
    """
    return _cpuinfo("flags", "Features")  # of x86 and of Arm


def _cpuinfo(*fields: str) -> str:
    """Return the first value of one of the fields that the system tells of its processors."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    found = (line.split(":", 1)[1].strip() for line in lines if line.startswith(fields))
    return next(found, "")


def describe_machine() -> str:
    """Return the processor, how many cores there are, and the system, in one line."""
    return f"{processor_name()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def package_version(package: str) -> str | None:
    """Return the version of an installed package, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
