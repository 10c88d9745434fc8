"""Where images and annotations come from: COCO-layout folders, and the embedded dataset."""
