"""The version of run.toml, apart from all that is in it: who lists runs asks for nothing else of the settings."""

SCHEMA = 1
