"""`make demo`: the main job, on embedded defaults. A real log becomes a served ranking, by the scheduler alone."""
