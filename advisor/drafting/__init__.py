"""From a recommendation to a plan: arms, training settings, checks of form, score weights and gate."""
