"""Distillation terms of methods published since 2022, one paper a file; `segctl.distillers` holds the earlier ones."""
