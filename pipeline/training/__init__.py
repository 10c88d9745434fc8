"""The training loop that teachers and students share."""
