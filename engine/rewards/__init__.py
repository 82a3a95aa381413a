"""Python reward functions: where they lie, which were approved on this machine, and the child that calls them."""
