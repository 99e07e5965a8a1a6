"""Why a finished run's answers are wrong: the cause of each, found by answering again with the gold passage."""
