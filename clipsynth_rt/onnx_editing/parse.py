"""ONNX files as models that can be rewritten, where ``onnx`` is installed."""

from __future__ import annotations

from typing import Any

from clipsynth_rt.errors import MissingExtraError


def parse(data: bytes, extra: str) -> Any:
    """Return the ``onnx.ModelProto`` of an ONNX file, or None if it is none.

    Args:
        data: The file.
        extra: What installs ``onnx`` beside the backend that asks.

    Raises:
        MissingExtraError: If ``onnx`` is not installed.
    """
    try:
        from google.protobuf.message import DecodeError
        from onnx import load_model_from_string
    except ModuleNotFoundError as error:
        raise MissingExtraError("onnx", extra) from error
    try:
        return load_model_from_string(data)
    except DecodeError:
        return None
