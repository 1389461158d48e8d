"""LLVM IR text for CPUs."""
