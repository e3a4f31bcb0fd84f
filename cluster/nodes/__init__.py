"""Many nodes: one node's run, the shell that holds several of them, the fleet that a front-end sends requests to."""
