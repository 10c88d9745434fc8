"""``shapes``: the embedded dataset, procedural and in COCO layout, whose difficulty is localization."""
