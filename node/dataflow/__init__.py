"""A model's operators become kernels."""
