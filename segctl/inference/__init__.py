"""Trained networks and people's own pictures: `segctl.load` in Python, `segctl predict` on the command line.

Exported .onnx and OpenVINO files run here without torch.
"""
