"""Teachers that are described in a file: ONNX graphs, and PyTorch modules of anybody's."""
