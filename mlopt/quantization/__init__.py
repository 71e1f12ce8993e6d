"""Lower precision for ONNX files. A scheme is data, and the target decides which
one."""
