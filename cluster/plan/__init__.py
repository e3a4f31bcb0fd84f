"""The fewest nodes that keep a promise: what is asked, the candidates, their runs, the search, how it is told."""
