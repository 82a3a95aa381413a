"""What a person sees: the Textual app, one screen per task.

The package holds no screen yet; the import contracts that bind it are already in force.
Screens call `workbench` for every decision, load no torch, and never import the command line.
"""
