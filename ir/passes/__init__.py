"""Exact, target-independent rewrites: each is a function from Graph to Graph."""
