"""From a recommendation to a plan."""
