"""Nothing is unpickled, and no code runs from a bundle, a checkpoint or a shard."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("clipsynth_rt", "training", "export", "examples", "benchmarks")
SOURCES = sorted(p for part in PARTS for p in (ROOT / part).rglob("*.py"))

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
BUILTINS = {"eval", "exec", "compile"}
METHODS = {
    ("torch", "load"),
    ("torch.jit", "load"),
    ("torch.hub", "load"),
    ("yaml", "load"),
    ("yaml", "unsafe_load"),
    ("pandas", "read_pickle"),
    ("importlib.util", "spec_from_file_location"),
    ("ctypes", "CDLL"),
    ("ctypes.cdll", "LoadLibrary"),
}
ALLOWED = {
    # libraries of the driver and of installed wheels, by fixed names
    "clipsynth_rt/backends/tensorrt/cuda.py": ["ctypes.CDLL()"],
    "clipsynth_rt/backends/tensorrt/api.py": ["ctypes.CDLL()"],
    # the C library of this process, which gives freed memory back
    "clipsynth_rt/server/requests.py": ["ctypes.CDLL()"],
}
KEYWORDS = {"allow_pickle", "trust_remote_code", "shell"}


def weights_only(call: ast.Call) -> bool:
    """Return whether a call is of torch's unpickler that makes tensors and nothing else."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    value = given.get("weights_only")
    return isinstance(value, ast.Constant) and value.value is True


def offences(tree: ast.AST) -> list[str]:
    """Return what could run code that comes as data."""
    found = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found += [f"import {name}" for name in names if name.partition(".")[0] in MODULES]
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in BUILTINS:
            found.append(f"{node.func.id}()")
        if isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value)
            if (owner, node.func.attr) in METHODS and not weights_only(node):
                found.append(f"{owner}.{node.func.attr}()")
            if node.func.attr == "register_custom_ops_library":
                found.append(node.func.attr)
        for keyword in node.keywords:
            value = keyword.value
            off = isinstance(value, ast.Constant) and value.value in (False, None)
            if keyword.arg in KEYWORDS and not off:
                found.append(f"{keyword.arg}={ast.unparse(value)}")
    return found


def test_there_is_something_to_check() -> None:
    assert len(SOURCES) > 80


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_code_from_data(path: Path) -> None:
    allowed = ALLOWED.get(path.relative_to(ROOT).as_posix(), [])
    assert offences(ast.parse(path.read_text())) == allowed


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "numpy.load(path, allow_pickle=True)",
        "eval(text)",
        "options.register_custom_ops_library(path)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_check_sees(source: str) -> None:
    assert offences(ast.parse(source)) != []
