"""Functional mode: what the tiers of a socket hold, and what its kernels make of it."""
