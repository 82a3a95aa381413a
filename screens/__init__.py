"""What a person sees: the Textual app, one screen for each task.

A screen composes widgets, binds keys and handles messages; what it decides is a call to `workbench`. Nothing here loads
torch, transformers or pyarrow, and DuckDB and numpy only once something is shown that needs them.
"""
