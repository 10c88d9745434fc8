"""What ``ldp bench`` measures: code that times the library, and that no stage imports."""
