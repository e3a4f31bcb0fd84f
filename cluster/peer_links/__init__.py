"""Peer links that move real data between the sockets of a tensor-parallel group, in functional mode."""
