"""The teacher: trained or loaded, run once over the planned views, its outputs written to a store."""
