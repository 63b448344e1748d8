"""Files that `segctl export` wrote, and running them: pictures in, classes out. Needs no torch for .onnx and OpenVINO.

program = open_program("runs/x/export/model.onnx")
labels = program.labels(images)      uint8 or uint16 (B, H, W, N) -> uint8 (B, H, W)
"""

from segctl.programs.base import Program
from segctl.programs.facts import ProgramFacts
from segctl.programs.open import bytes_of, exports_of, is_program, open_program, program_facts

__all__ = ["Program", "ProgramFacts", "bytes_of", "exports_of", "is_program", "open_program", "program_facts"]
