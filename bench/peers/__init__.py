"""Objectives of others, written anew from their papers, that take the place of SASS's in the same loop.

Each is a class as `sass.model.objective.Objective` describes it. Encoder, views, places, optimiser and
budget are those of the row's configuration, and the encoder kept is the moving average of the one trained.
They are written for one process.
"""
