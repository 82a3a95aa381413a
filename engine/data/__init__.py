"""Data: training examples, the one chat renderer, packing. Only `packing` needs torch."""
