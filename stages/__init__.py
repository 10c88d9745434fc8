"""One thin script for each stage of ``dvc.yaml``: parse, load parameters, call the library, write."""
