"""Runs as jobs of a Ray cluster, by its dashboard alone: handed over, followed, and their results brought back."""
