"""Nodes on Ray: the only half that knows processes, files of results and ports."""

__version__ = "0.1.0"  # here, and not in pyproject.toml: a job runs from a checkout that is not installed
