"""The commands of `ldp`; none is a stage."""
