"""``report.html``: what a run, or a comparison of machines, came to, as one page that needs nothing else."""
