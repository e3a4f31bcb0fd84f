"""Real models from files: weights, tokenizers and chat templates of GGUF files and Hugging Face folders."""
