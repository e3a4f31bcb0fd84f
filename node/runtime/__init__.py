"""Who, where, next: the host-side CoE runtime. It decides, addresses included; it never asks the hardware."""
