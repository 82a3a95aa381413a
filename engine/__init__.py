"""Training, headless: given a run folder, it trains and writes to that folder.

Imports nothing of the workbench or its screens, and nothing heavy on import.
"""
