"""Prompt to expert: a router fitted to example prompts of each expert. Pure numpy; no clock, nothing is drawn."""
