"""What `ldp store` does beside reading."""
