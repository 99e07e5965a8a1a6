"""From a profile to a recommendation: ranking, confidence, sensitivity, relaxations and break-even."""
