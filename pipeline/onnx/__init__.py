"""Teachers that are ONNX files."""
