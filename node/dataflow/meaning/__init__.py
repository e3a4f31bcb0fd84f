"""What operators compute: the graph that is timed, as arithmetic in numpy."""
