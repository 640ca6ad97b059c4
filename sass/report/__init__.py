"""The report: pages that people open, made from what the other stages left behind."""
