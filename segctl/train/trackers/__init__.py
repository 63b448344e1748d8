"""`--track`: a run's curves, settings and worst images in TensorBoard, Weights & Biases, MLflow or Trackio.

None of them is needed, and none needs an account: log.jsonl holds the same numbers. tracking.py is the seam; a further tracker is
a file with a class like those beside it, a row in tracking.py's table, and an extra in pyproject.toml.
"""
