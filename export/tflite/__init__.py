"""The lowering: an ONNX graph becomes a TFLite file."""
