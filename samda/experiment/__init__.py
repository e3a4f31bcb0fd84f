"""Does a generic branch help few-shot adaptation? Arms, seeds and shots, with a split that keeps them honest."""
