"""The methods: each is a source of packed batches joined to a pure objective, for the one training loop to run."""
