"""SAMDA: vision experts, learned with PyTorch and run on the emulated machine. Optional: nothing imports it."""
