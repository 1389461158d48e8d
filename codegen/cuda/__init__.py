"""CUDA C text for GPUs."""
