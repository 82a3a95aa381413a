"""Objectives: pure functions on log-probs, rewards and values. They return unreduced terms; the caller owns counts."""
