"""Model repositories for Triton: structure by its own schema, and the sound that comes out.

The real server runs where CLIPSYNTH_RT_TRITON names a folder made by
``pip install --no-deps --target FOLDER nvidia-pytriton "numpy<2"`` (its stub predates NumPy 2);
it has no ONNX Runtime backend, for which ``triton_onnxruntime.py`` stands in.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from clipsynth_export.to_triton import write_repository
from clipsynth_rt import Bundle, Synthesizer
from clipsynth_rt.cli.main import main
from clipsynth_rt.errors import HashMismatchError, InputError, OutputError
from clipsynth_rt.server.triton import OPTIONS, TritonPythonModel

onnxruntime = pytest.importorskip("onnxruntime")
MODELS = {
    "clipsynth": "python",
    "clipsynth_text_encoder": "onnxruntime",
    "clipsynth_denoiser_step": "onnxruntime",
    "clipsynth_vocoder": "onnxruntime",
}


@pytest.fixture(scope="module")
def repository(tiny_bundle, tmp_path_factory):
    return write_repository(Bundle.open(tiny_bundle), tmp_path_factory.mktemp("triton") / "models")


@pytest.fixture(scope="module")
def own(tiny_bundle):
    return Synthesizer.from_bundle(tiny_bundle, "cpu", threads=1)


def parse(path):
    """Return config.pbtxt read by Triton's own schema; a field it does not know is an error."""
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from google.protobuf import text_format

    return text_format.Parse(path.read_text(), schema.ModelConfig())


def test_structure(repository, tiny_bundle):
    assert sorted(p.name for p in repository.iterdir()) == sorted(MODELS)
    for name, backend in MODELS.items():
        config = parse(repository / name / "config.pbtxt")
        assert (config.name, config.backend) == (name, backend)
        model = "model.py" if backend == "python" else "model.onnx"
        assert (repository / name / "1" / model).is_file()
    shipped = tiny_bundle / "fp32" / "vocoder.onnx"
    assert (
        repository / "clipsynth_vocoder" / "1" / "model.onnx"
    ).read_bytes() == shipped.read_bytes()


def test_both_denoisers_are_served(distilled_bundle, tmp_path):
    folder = write_repository(Bundle.open(distilled_bundle), tmp_path / "models", tensorrt=True)
    expected = [*MODELS, "clipsynth_denoiser_step_distilled"]
    assert sorted(p.name for p in folder.iterdir()) == sorted(expected)
    config = parse(folder / expected[-1] / "config.pbtxt")
    assert config.optimization.execution_accelerators.gpu_execution_accelerator


def test_tensors_are_the_graphs(repository):
    kinds = {"TYPE_FP32": "tensor(float)", "TYPE_INT64": "tensor(int64)"}
    for name in list(MODELS)[1:]:
        config = parse(repository / name / "config.pbtxt")
        session = onnxruntime.InferenceSession(repository / name / "1" / "model.onnx")
        for mine, real in (
            (config.input, session.get_inputs()),
            (config.output, session.get_outputs()),
        ):
            assert [t.name for t in mine] == [t.name for t in real]
            for tensor, node in zip(mine, real, strict=True):
                assert (
                    kinds[
                        type(config.input[0])
                        .DESCRIPTOR.fields_by_name["data_type"]
                        .enum_type.values_by_number[tensor.data_type]
                        .name
                    ]
                    == node.type
                )
                assert len(tensor.dims) == len(node.shape)
                for size, other in zip(tensor.dims, node.shape, strict=True):
                    assert size in (-1, other)


@pytest.mark.parametrize("gpu", [False, True])
def test_where_graphs_run_is_said(tiny_bundle, tmp_path, gpu):
    out = tmp_path / "models"
    more = ["--gpu"] if gpu else []
    result = CliRunner().invoke(
        main, ["export", "--triton", str(out), "--bundle", str(tiny_bundle), *more]
    )
    assert result.exit_code == 0, result.output
    for name in list(MODELS)[1:]:
        (group,) = parse(out / name / "config.pbtxt").instance_group
        assert group.kind == (group.KIND_GPU if gpu else group.KIND_CPU)


def test_tensorrt_is_asked_of_the_gpu(tiny_bundle, tmp_path):
    folder = write_repository(Bundle.open(tiny_bundle), tmp_path / "models", tensorrt=True)
    config = parse(folder / "clipsynth_denoiser_step" / "config.pbtxt")
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    text = parse(folder / "clipsynth_text_encoder" / "config.pbtxt")
    assert not text.HasField("optimization")
    for group in (*text.instance_group, *config.instance_group):
        assert group.kind == group.KIND_GPU


def test_a_damaged_bundle_leaves_nothing(tiny_copy, tmp_path):
    path = tiny_copy / "fp32" / "vocoder.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(HashMismatchError, match="vocoder"):
        write_repository(Bundle.open(tiny_copy), tmp_path / "models")
    assert not (tmp_path / "models").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_other_folders_are_not_overwritten(tiny_bundle, tmp_path, repository):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="is no Triton model repository"):
        write_repository(Bundle.open(tiny_bundle), tmp_path)
    again = shutil.copytree(repository, tmp_path / "again")
    assert write_repository(Bundle.open(tiny_bundle), again) == again


def test_command(tiny_bundle, tmp_path, monkeypatch):
    # torch is not needed
    monkeypatch.setitem(sys.modules, "torch", None)
    out = str(tmp_path / "models")
    run = CliRunner().invoke
    result = run(main, ["export", "--triton", out, "--bundle", str(tiny_bundle)])
    assert result.exit_code == 0, result.output
    assert f"tritonserver --model-repository={out}" in result.output
    for more in (["--checkpoint", "x"], ["--no-engines"], ["--precision", "a", "--precision", "b"]):
        result = run(main, ["export", "--triton", out, "--bundle", str(tiny_bundle), *more])
        assert result.exit_code == 2
        assert result.output.count("\n") == 1
    for alone in (["--bundle", str(tiny_bundle)], ["--gpu"], ["--tensorrt"]):
        assert run(main, ["export", *alone]).exit_code == 2
    result = run(
        main, ["export", "--triton", out, "--bundle", str(tiny_bundle), "--precision", "fp16"]
    )
    assert result.exit_code == 1
    assert "has no fp16 text_encoder" in result.output


class Tensor:
    """Triton's, over arrays."""

    def __init__(self, name, value):
        assert value.flags.c_contiguous
        self._name, self._value = name, value

    def name(self):
        return self._name

    def as_numpy(self):
        return self._value


class TritonError(Exception):
    INVALID_ARG, INTERNAL = 3, 1

    def __init__(self, message, code=INTERNAL):
        super().__init__(message)
        self.code = code

    def message(self):
        return str(self)


class Response:
    def __init__(self, output_tensors=(), error=None):
        self.tensors = {tensor.name(): tensor for tensor in output_tensors}
        self._error = error

    def has_error(self):
        return self._error is not None

    def error(self):
        return self._error


@pytest.fixture
def model(repository, monkeypatch):
    """The loaded model, and the requests that it made of the others."""
    asked = []

    class Request:
        def __init__(self, model_name, requested_output_names, inputs):
            self.model, self.wanted = model_name, requested_output_names
            self.inputs = {tensor.name(): tensor.as_numpy() for tensor in inputs}

        def exec(self):
            asked.append(self)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            session = onnxruntime.InferenceSession(
                repository / self.model / "1" / "model.onnx", options
            )
            try:
                values = session.run(self.wanted, self.inputs)
            except Exception as error:
                return Response(error=TritonError(str(error)))
            return Response([Tensor(*pair) for pair in zip(self.wanted, values, strict=True)])

    module = SimpleNamespace(
        InferenceRequest=Request,
        InferenceResponse=Response,
        Tensor=Tensor,
        TritonError=TritonError,
        get_input_tensor_by_name=lambda request, name: request.get(name),
        get_output_tensor_by_name=lambda response, name: response.tensors[name],
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)
    loaded = TritonPythonModel()
    loaded.initialize({"model_repository": str(repository / "clipsynth"), "model_version": "1"})
    return loaded, asked


def ask(*queries, **options):
    values = {"query": np.array([[q.encode()] for q in queries], np.object_)}
    types = {"seed": np.uint64, "num_steps": np.int32, "loop": np.bool_}
    types |= dict.fromkeys(("negative", "template", "sampler", "denoiser"), np.object_)
    for name, given in options.items():
        values[name] = np.array([[value] for value in given], types.get(name, np.float32))
    return {name: Tensor(name, value) for name, value in values.items()}


def sound(response):
    assert not response.has_error(), response.error()
    return response.tensors["waveform"].as_numpy()


def test_the_sound_is_the_packages(model, own):
    responses = model[0].execute([ask("drum"), ask("piano", "dog", seed=[7, 3], num_steps=[2, 4])])
    np.testing.assert_array_equal(sound(responses[0])[0], own.synth("drum").waveform)
    for row, (query, seed, num_steps) in zip(
        sound(responses[1]), [("piano", 7, 2), ("dog", 3, 4)], strict=True
    ):
        wanted = own.synth(query, seed=seed, num_steps=num_steps).waveform
        np.testing.assert_array_equal(row, wanted)
    assert responses[1].tensors["sample_rate"].as_numpy().tolist() == [[22050]] * 2


def test_every_option_of_the_package_is_an_input(model, own):
    options = {
        **{"duration": 0.5, "num_steps": 3, "guidance_scale": 2.0, "eta": 0.5, "lufs": -30.0},
        **{"negative": "dog", "template": "the {query}", "sampler": "ddim", "loop": True},
        "denoiser": "full",
    }
    assert set(options) == set(OPTIONS) - {"seed"}
    sent = {n: [v.encode() if isinstance(v, str) else v] for n, v in options.items()}
    (response,) = model[0].execute([ask("drum", **sent)])
    # 0.5, 2 and -30 are the same in the 32 bits that Triton sends
    np.testing.assert_array_equal(sound(response)[0], own.synth("drum", **options).waveform)


def test_requests_that_wish_for_the_same_share_their_steps(model, own):
    requests = [ask("drum", seed=[1], num_steps=[3]), ask("rain", seed=[2], num_steps=[3])]
    responses = model[0].execute(requests)
    num_steps = [r for r in model[1] if r.model == "clipsynth_denoiser_step"]
    assert [len(r.inputs["x"]) for r in num_steps] == [2, 2, 2]
    # a batch of two sums in another order
    wanted = own.synth("rain", seed=2, num_steps=3).waveform
    np.testing.assert_allclose(sound(responses[1])[0], wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ask(" "), "query is empty"),
        (ask("drum", num_steps=[0]), "num_steps must be from 1"),
        (ask("drum", duration=[99.0]), "duration must be"),
        (ask("drum", guidance_scale=[float("nan")]), "guidance_scale must be"),
        (ask("drum", "dog", duration=[0.5, 1.0]), "of one duration"),
        (ask("drum", denoiser=[b"distilled"]), "has no distilled denoiser"),
        (ask("drum", negative=[b"\xff"]), "negative is not valid UTF-8"),
        (ask("drum", seed=[1, 2]), "2 values of seed for 1 queries"),
        ({"query": Tensor("query", np.array([[b"\xff"]], np.object_))}, "not valid UTF-8"),
    ],
)
def test_a_bad_request_fails_alone(model, own, request_, message):
    bad, good = model[0].execute([request_, ask("drum", num_steps=[2])])
    assert message in bad.error().message()
    assert bad.error().code == TritonError.INVALID_ARG
    np.testing.assert_array_equal(sound(good)[0], own.synth("drum", num_steps=2).waveform)


def test_a_graph_that_fails_is_named(model):
    model[0]._synthesizer.session("vocoder")._model = "clipsynth_text_encoder"
    (response,) = model[0].execute([ask("drum", num_steps=[1])])
    assert response.error().code == TritonError.INTERNAL
    assert "clipsynth_text_encoder: " in response.error().message()


def test_a_bundle_without_the_graph(repository, model):
    with pytest.raises(InputError, match="has no image_encoder2"):
        model[0]._synthesizer.session("image_encoder2")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def server(repository, tmp_path):
    """A client of a real tritonserver."""
    home = os.environ.get("CLIPSYNTH_RT_TRITON")
    if not home:
        pytest.skip("CLIPSYNTH_RT_TRITON names no folder with nvidia-pytriton")
    client = pytest.importorskip("tritonclient.grpc")
    triton = Path(home) / "pytriton" / "tritonserver"
    stubs = triton / "python_backend_stubs" / "{}.{}".format(*sys.version_info)
    if not stubs.is_dir() or not (Path(home) / "numpy").is_dir():
        pytest.skip(f"{home} has no Python stub or NumPy for this interpreter")
    backends = tmp_path / "backends"
    shutil.copytree(triton / "backends" / "python", backends / "python")
    stub = Path(shutil.copy(stubs / "triton_python_backend_stub", backends / "python"))
    binary = Path(shutil.copy(triton / "bin" / "tritonserver", tmp_path))
    for program in (stub, binary):
        program.chmod(0o755)
    (backends / "onnxruntime").mkdir()
    shutil.copy(
        Path(__file__).with_name("triton_onnxruntime.py"), backends / "onnxruntime" / "model.py"
    )
    # the stub finds its packages through the first python3 of PATH: this environment's, but NumPy
    venv.create(tmp_path / "venv", with_pip=False)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    for package in ("numpy", "numpy.libs"):
        (site / package).symlink_to(Path(home) / package)
    root = Path(__file__).parents[2]
    (site / "all.pth").write_text(
        "\n".join([str(root), *(p for p in sys.path if p.endswith("site-packages"))])
    )
    libraries = [str(Path(home) / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR")]
    port = free_port()
    with (
        (tmp_path / "log").open("w") as log,
        running(
            [
                binary,
                f"--model-repository={repository}",
                f"--backend-directory={backends}",
                "--allow-http=false",
                "--allow-metrics=false",
                "--grpc-address=127.0.0.1",
                f"--grpc-port={port}",
                "--exit-timeout-secs=3",
            ],
            env=os.environ
            | {
                "PATH": f"{tmp_path}/venv/bin:{os.environ['PATH']}",
                "LD_LIBRARY_PATH": ":".join(libraries),
            },
            stdout=log,
            stderr=log,
        ) as process,
        contextlib.closing(client.InferenceServerClient(f"127.0.0.1:{port}")) as connection,
    ):
        deadline = time.monotonic() + 90
        while not ready(connection):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.2)
        yield connection


@contextlib.contextmanager
def running(command, **options):
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ready(connection):
    with contextlib.suppress(Exception):
        return connection.is_server_ready() and connection.is_model_ready("clipsynth")
    return False


@pytest.mark.slow
def test_a_real_server(server, own):
    import tritonclient.grpc as client

    def infer(queries, num_steps):
        inputs = []
        for name, kind, value in (
            ("query", "BYTES", np.array([[q.encode()] for q in queries], np.object_)),
            ("num_steps", "INT32", np.full((len(queries), 1), num_steps, np.int32)),
        ):
            inputs.append(client.InferInput(name, value.shape, kind))
            inputs[-1].set_data_from_numpy(value)
        return server.infer("clipsynth", inputs).as_numpy("waveform")

    rows = infer(["drum", "piano"], 4)
    for row, (seed, query) in zip(rows, enumerate(["drum", "piano"]), strict=True):
        wanted = own.synth(query, seed=seed, num_steps=4).waveform
        # the stub has another NumPy, and a batch of two sums in another order
        np.testing.assert_allclose(row, wanted, atol=1e-6)
    with pytest.raises(client.InferenceServerException, match="num_steps must be from 1"):
        infer(["drum"], 0)
