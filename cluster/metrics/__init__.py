"""A run's metrics: what is counted while it goes on, and how Prometheus gets to see it."""
