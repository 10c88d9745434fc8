"""Which points matter: grids, anchors, the main region (ATSS) and the valuable localization region (VLR)."""
