"""Operator graphs of the models served."""
