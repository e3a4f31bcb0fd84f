"""How long, and whether it fits."""
