"""Stands in for Triton's ONNX Runtime backend, which no wheel ships: a Python-based backend.

The server finds it as backends/onnxruntime/model.py and gives it models whose config.pbtxt says
``backend: "onnxruntime"``, unchanged.
"""

from pathlib import Path

import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"]) / args["model_version"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        path = str(folder / "model.onnx")
        self.session = onnxruntime.InferenceSession(path, options, providers=providers)

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        names = list(request.requested_output_names())
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        try:
            values = self.session.run(names, inputs)
        except Exception as error:
            return triton.InferenceResponse(error=triton.TritonError(str(error)))
        tensors = [triton.Tensor(*pair) for pair in zip(names, values, strict=True)]
        return triton.InferenceResponse(output_tensors=tensors)
