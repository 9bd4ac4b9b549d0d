"""Networks of integers for microcontrollers: quantization, arithmetic, cost, and their form in ONNX and C."""
