"""The teacher: trained or loaded, run once over all views, its outputs written to a store."""
