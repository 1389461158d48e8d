"""Program to loop nests to LLVM IR text or CUDA C text, plus the buffer plan. Makes text and plans only."""
