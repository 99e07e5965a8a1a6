"""People's labels of a finished run's answers: a journal for each person, the order of labelling, gold that people wrote."""
