"""A run that is put aside and goes on later: its checkpoint, when it is written, who may go on from it."""
