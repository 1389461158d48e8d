"""Text to code to results: targets, memory, threads, loading, caches."""
