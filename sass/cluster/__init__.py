"""From embeddings to fine codes, and from codes to any number of classes."""
