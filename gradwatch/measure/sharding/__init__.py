"""All that only several processes need: where the parts of a gradient lie, and how ranks add them up."""
