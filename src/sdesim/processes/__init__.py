"""Floor 2: the models. Formulas and closed forms; nothing here knows an integrator, a grid or a device."""
