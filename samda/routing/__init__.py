"""Which expert an image is for: a classifier of domains on what the generic encoder makes of it anyway."""
