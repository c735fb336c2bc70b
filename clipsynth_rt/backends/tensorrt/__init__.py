"""TensorRT and TensorRT for RTX: engines, their cache and CUDA graphs."""
