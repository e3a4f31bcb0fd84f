"""Many runs over a grid of settings: what to run, where, keeping results, the front of cost and latency."""
