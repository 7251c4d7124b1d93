"""From torch to ONNX, and from ONNX to what a runtime takes."""
