"""The teacher of a distillation: find it, load it, score it before step 1, and cache its outputs."""
