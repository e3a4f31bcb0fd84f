"""What it costs to switch experts: by arithmetic, and in a run."""
