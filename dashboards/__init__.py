"""Grafana dashboards of a run's metrics, as code; ``python -m dashboards`` writes them as JSON beside it."""
