"""Public data sets by their own protocols, through the same stages as any archive."""
