"""ONNX graphs rewritten for GPUs, where ``onnx`` is installed."""
