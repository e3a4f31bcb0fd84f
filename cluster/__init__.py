"""Nodes on Ray: the only half that knows processes, files of results and ports."""
