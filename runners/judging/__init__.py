"""A model that grades answers: what it is asked, its grades checked against orders in them, its calibration on labels."""
