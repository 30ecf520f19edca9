"""Tunesmith: `make` for fine-tuned models, from raw data to a verified GGUF."""
