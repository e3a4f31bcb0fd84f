"""PyTorch with one thread, as files of tests run side by side, one for each core, and threads that wait would spin."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
