"""What may import what, checked in fresh interpreters."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "onnx",
    "onnxruntime",
    "tensorrt",
    "tensorrt_rtx_bindings",
    "cuda.bindings",
    "openvino",
    "tokenizers",
    "soundfile",
    "PIL",
    "scipy",
    "pyloudnorm",
    "soxr",
    "huggingface_hub",
    "click",
    "tqdm",
    "fastapi",
    "uvicorn",
    "pydantic",
    "clipsynth_export",
    "clipsynth_training",
)
RUNTIME = (
    "audio.clip",
    "audio.limiter",
    "audio.load",
    "audio.loudness",
    "audio.mel",
    "audio.plot",
    "audio.provenance",
    "backends.cache_file",
    "backends.choice",
    "backends.interface",
    "backends.session",
    "backends.tensorrt.api",
    "backends.tensorrt.backend",
    "backends.tensorrt.buffers",
    "backends.tensorrt.captured",
    "backends.tensorrt.cuda",
    "backends.tensorrt.engines",
    "backends.tensorrt.engine_cache",
    "backends.tensorrt.prebuild",
    "background",
    "bundles.archive",
    "bundles.bundle",
    "bundles.fetch",
    "bundles.hub",
    "bundles.manifest",
    "bundles.onnx_file",
    "bundles.store",
    "bundles.tokenizer",
    "cache",
    "errors",
    "files",
    "jobs.batch",
    "jobs.bench",
    "jobs.csv_rows",
    "machine",
    "onnx_editing.dequantize",
    "onnx_editing.parse",
    "onnx_editing.transposed",
    "synthesis.images",
    "synthesis.loop",
    "synthesis.options",
    "synthesis.renderers",
    "synthesis.samplers",
    "synthesis.schedule",
    "synthesis.sessions",
    "synthesis.encoders",
    "synthesis.cancel",
    "synthesis.captured",
    "synthesis.synthesizer",
    "synthesis.windows",
    "timing",
)


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


def loaded_after(statement: str) -> set[str]:
    return set(json.loads(run(f"import sys, json\n{statement}\nprint(json.dumps([*sys.modules]))")))


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_after("import clipsynth_rt").isdisjoint(HEAVY)


def test_the_runtime_loads_its_libraries_on_use() -> None:
    names = ", ".join(f"clipsynth_rt.{name}" for name in RUNTIME)
    assert loaded_after(f"import {names}").isdisjoint(HEAVY)


def test_the_command_line_lists_its_commands_without_importing_them() -> None:
    code = (
        "from clipsynth_rt.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as done:\n    assert not done.code"
    )
    output = run(f"import sys, json\n{code}\nprint('\\n' + json.dumps([*sys.modules]))")
    loaded = set(json.loads(output.splitlines()[-1]))
    assert loaded.isdisjoint(set(HEAVY) - {"click"})
    assert {name for name in loaded if name.startswith("clipsynth_rt.cli.")} == {
        "clipsynth_rt.cli.main"
    }


def test_training_and_export_stay_out_of_a_synthesis(tiny_bundle: object) -> None:
    pytest.importorskip("onnxruntime")
    loaded = loaded_after(
        "from clipsynth_rt import Synthesizer\n"
        f"Synthesizer.from_bundle({str(tiny_bundle)!r}, 'cpu').synth('drum', num_steps=1)"
    )
    assert "onnxruntime" in loaded
    assert loaded.isdisjoint({"torch", "onnx", "scipy", "clipsynth_export", "clipsynth_training"})


def test_every_public_name_is_there() -> None:
    run(
        "import clipsynth_rt\n"
        "for name in clipsynth_rt.__all__:\n    assert getattr(clipsynth_rt, name) is not None\n"
        "assert set(clipsynth_rt.__all__) <= set(dir(clipsynth_rt))"
    )


def test_an_unknown_name_is_an_attribute_error() -> None:
    import clipsynth_rt

    with pytest.raises(AttributeError, match="has no attribute 'Vocoder'"):
        _ = clipsynth_rt.Vocoder


def test_import_time() -> None:
    # processor time, and a median: the machine may be busy with something else
    code = (
        "import time; t = time.process_time(); import clipsynth_rt; print(time.process_time() - t)"
    )
    assert statistics.median(float(run(code)) for _ in range(5)) < 0.15
