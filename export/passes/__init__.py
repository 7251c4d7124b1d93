"""Passes on the ONNX graph, one per file."""
