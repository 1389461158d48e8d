"""The SSA program: types, orders, graphs, loop nests, op declarations, passes, printing and parsing."""
