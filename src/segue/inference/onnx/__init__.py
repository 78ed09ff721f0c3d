"""Models outside of torch: folders with an encoder in ONNX, and their reader, which imports no torch."""
