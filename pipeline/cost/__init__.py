"""What a recipe will cost, before it runs: from its annotations and a short probe of the machine."""
