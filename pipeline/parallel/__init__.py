"""Doing several things at once, in threads and in processes; knows nothing of teachers or stores."""
