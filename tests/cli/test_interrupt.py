"""Ctrl-C inside a library's call that never comes back."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from clipsynth_rt.cli.interrupt import prompt_interrupt

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

RUN = """
import sys
import numpy as np, onnxruntime
from clipsynth_rt.cli.interrupt import prompt_interrupt
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
with prompt_interrupt(0.5):
    print("runs", flush=True)
    session.run(None, {"x": np.ones(1, np.float32)})
"""


def endless(path: Path) -> None:
    """A loop whose condition stays true."""
    helper, kinds = onnx.helper, onnx.TensorProto
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Identity", ["v"], ["v2"])],
        "body",
        [info("i", kinds.INT64, []), info("c", kinds.BOOL, []), info("v", kinds.FLOAT, [1])],
        [info("c2", kinds.BOOL, []), info("v2", kinds.FLOAT, [1])],
    )
    true = helper.make_tensor("true", kinds.BOOL, [], [True])
    loop = helper.make_node("Loop", ["", "true", "x"], ["y"], body=body)
    graph = helper.make_graph(
        [loop], "g", [info("x", kinds.FLOAT, [1])], [info("y", kinds.FLOAT, [1])], [true]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def test_a_graph_that_never_ends_is_interrupted(tmp_path: Path) -> None:
    endless(tmp_path / "endless.onnx")
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path / "endless.onnx")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, errors) == (130, "clipsynth-rt: interrupted\n")


def test_an_interrupt_that_python_handles_in_time_stays_an_exception() -> None:
    with pytest.raises(KeyboardInterrupt), prompt_interrupt(30.0):
        signal.raise_signal(signal.SIGINT)
    assert "interrupt" not in {thread.name for thread in threading.enumerate()}


def test_another_handler_is_left_alone() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    try:
        with prompt_interrupt(0.0):
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]
