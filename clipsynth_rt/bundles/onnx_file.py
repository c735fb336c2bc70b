"""What an ONNX file of a bundle may contain, read from its bytes without a library.

A graph of standard operators without subgraphs runs each node once. Control flow (``Loop``,
``Scan``, ``If``) and model functions can make a file of a few kB run for ever or grow without end.
"""

from __future__ import annotations

import re

STANDARD_DOMAINS = frozenset({b"", b"ai.onnx"})
CONTROL_FLOW = frozenset({b"If", b"Loop", b"Scan", b"SequenceMap"})
"""ONNX's operators that run a subgraph."""

# The length before a protobuf string of eight bytes, ``location``: 8, in any spelling of a varint.
_LENGTH_EIGHT = re.compile(rb"(?:\x08|\x88[\x80-\xff]{0,8}[\x00-\x7f])\Z")
_LONGEST_VARINT = 10

# Field numbers of onnx.proto.
_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE = 1
_NODE_OP_TYPE, _NODE_DOMAIN = 4, 7


def refusal(data: bytes) -> str:
    """Return why a bundle may not hold this ONNX file: nothing if empty.

    The graph's nodes are looked at, not what is in them: only ``CONTROL_FLOW`` runs a subgraph.
    """
    if data[4:8] == b"ORTM":
        return "is in ONNX Runtime's own format; bundles hold ONNX files"
    if refers_to_other_files(data):
        return (
            "keeps weights in other files (ONNX external data), which a bundle may not; save it as "
            "one file"
        )
    try:
        return _model_refusal(data)
    except (ValueError, IndexError):
        return "is not an ONNX graph"


def _model_refusal(data: bytes) -> str:
    model = _fields(data, 0, len(data))
    if any(number == _MODEL_FUNCTIONS for number, _, _ in model):
        return "defines functions of its own; bundles hold standard operators"
    # a repeated graph is merged with the first
    graphs = [(start, end) for number, start, end in model if number == _MODEL_GRAPH]
    if not graphs:
        raise ValueError("no graph")
    for start, end in graphs:
        for number, first, last in _fields(data, start, end):
            if number == _GRAPH_NODE and (reason := _node_refusal(data, first, last)):
                return reason
    return ""


def _node_refusal(data: bytes, start: int, end: int) -> str:
    operator = domain = b""
    for number, first, last in _fields(data, start, end):
        if number == _NODE_OP_TYPE:
            operator = data[first:last]
        elif number == _NODE_DOMAIN:
            domain = data[first:last]
    if domain not in STANDARD_DOMAINS:
        name = (domain + b"." + operator).decode("utf-8", "replace")
        return f"has an operator {name!r:.60} that is not one of ONNX's own"
    if operator in CONTROL_FLOW:
        return (
            f"has control flow ({operator.decode()}), which may run for ever; bundles hold graphs "
            "that run each node once"
        )
    return ""


def _fields(data: bytes, at: int, end: int) -> list[tuple[int, int, int]]:
    """Return number, start and end of the fields of a protobuf message; numbers are empty.

    Raises:
        ValueError: If it is no message.
        IndexError: If it is cut off.
    """
    found = []
    while at < end:
        tag = data[at]
        at += 1
        if tag >= 0x80:
            tag, at = _varint(data, at - 1)
        kind = tag & 7
        size = 0
        if kind == 2:
            size = data[at]
            at += 1
            if size >= 0x80:
                size, at = _varint(data, at - 1)
            found.append((tag >> 3, at, at + size))
        elif kind == 0:
            _, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError("a group")
        at += size
    if at != end:
        raise ValueError("cut off")
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _LONGEST_VARINT, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), at
    raise ValueError("a number of over ten bytes")


def refers_to_other_files(model: bytes) -> bool:
    """Return whether an ONNX model may keep weights in other files.

    External data is named by an entry whose key is ``location``: that word as a protobuf string.
    A search for its bytes cannot miss one, wherever in the model it stands; a node of that very
    name counts as one.
    """
    at = model.find(b"location")
    while at >= 0:
        if _LENGTH_EIGHT.search(model[max(0, at - _LONGEST_VARINT) : at]):
            return True
        at = model.find(b"location", at + 1)
    return False
