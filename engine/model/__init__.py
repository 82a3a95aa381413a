"""Models: loading, the roles played on one base, packed forward passes, log-probs, the sampler, saving."""
