"""The checkpoint that the shipped voice was exported from: what training and export begin with."""

from __future__ import annotations

from pathlib import Path

DEFAULT = Path(__file__).parent / "default"
"""Folder of the shipped voice's checkpoint."""
