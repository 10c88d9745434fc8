"""How far a store is from its live teacher, as the training loss sees it."""
