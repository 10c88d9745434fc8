"""The console script ``ldp``: everything that is not a stage, one module a sub-command."""
