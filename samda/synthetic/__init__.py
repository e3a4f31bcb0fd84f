"""A synthetic set of electron micrographs, two domains with known mitochondria: a first try needs no download."""
