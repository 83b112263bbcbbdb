"""Losses as objects, with forward and backward."""
class CrossEntropyLoss: pass
