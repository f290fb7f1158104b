"""Floor 1: time stepping of paths, on arrays and coefficient functions; nothing here knows a process."""
