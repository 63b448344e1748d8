"""The public name of `segctl.losses.soft_labels`, where the functions stand."""

from segctl.losses.soft_labels import average_raters, boundary, boundary_smooth, smooth

__all__ = ["average_raters", "boundary", "boundary_smooth", "smooth"]
