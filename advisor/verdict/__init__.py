"""The verdict of a trial: arms compared on the same questions, guards, predictions and measurements."""
