"""The torch-free face of the engine: what a run is asked to do, what it says about itself, and who keeps it alive."""
