"""The SASS encoder, its views, loss and training.

Imports torch, numpy, safetensors and the standard library only.
"""
