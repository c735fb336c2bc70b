"""Export: PyTorch to ONNX, precision written into the graph, parity checked, bundle assembled."""
